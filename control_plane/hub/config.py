"""config.json → dimensions. With its neighbours the one place that knows what families call the same thing.

Plain JSON: transformers is never imported, and code that the config points at (``auto_map``) is noted, not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.hub.attention import AttentionLayer, read_attention
from control_plane.hub.errors import InvalidRepository
from control_plane.hub.feed_forward import FeedForward, read_feed_forward
from control_plane.hub.values import number, text

_HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model")
_CONTEXT = (
    "model_max_length",
    "max_position_embeddings",
    "n_positions",
    "seq_length",
    "max_seq_len",
    "max_sequence_length",
    "n_ctx",
)
_VOCABULARY = ("padded_vocab_size", "vocab_size")
#: Families whose configs leave the context out, and what it is then.
_UNSTATED_CONTEXT = {"falcon": 2048, "RefinedWeb": 2048, "RefinedWebModel": 2048, "bloom": 2048}

#: Bytes per stored number, by the names that torch, config files and safetensors use.
DTYPE_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
    "uint8": 1,
}


@dataclass(frozen=True)
class Quantization:
    """How the weights are compressed: ``method`` as the config spells it (gptq, awq, fp8, …)."""

    method: str
    bits: int | None = None


@dataclass(frozen=True)
class ModelConfig:
    """What a config.json says, in common terms; ``None`` or empty where it says nothing.

    ``context`` is in tokens, stretched as the rotary scaling says; ``attention`` has one entry per layer that has any.
    ``custom_code`` is true where the config points at Python files of the repository.
    """

    architectures: tuple[str, ...]
    family: str | None
    context: int | None
    vocabulary: int | None
    hidden_size: int | None
    attention: tuple[AttentionLayer, ...]
    feed_forward: FeedForward | None
    dtype: str | None
    quantization: Quantization | None
    rope_type: str
    custom_code: bool

    @property
    def architecture(self) -> str | None:
        """The class name that the config puts first."""
        return self.architectures[0] if self.architectures else None


def read_config(config: Mapping[str, Any]) -> ModelConfig:
    """Interpret a parsed config.json.

    A multimodal model's numbers are those of its language part (``text_config``).

    :raises InvalidRepository: a value of the wrong type or beyond reason.
    """
    language = config.get("text_config")
    numbers: Mapping[str, Any] = {**config, **language} if isinstance(language, Mapping) else config
    return ModelConfig(
        architectures=_names(config.get("architectures")),
        family=text(config, "model_type"),
        context=_context(numbers),
        vocabulary=number(numbers, _VOCABULARY),
        hidden_size=number(numbers, _HIDDEN),
        attention=read_attention(numbers),
        feed_forward=read_feed_forward(numbers),
        dtype=_dtype(numbers),
        quantization=read_quantization(config.get("quantization_config")),
        rope_type=_rope_type(_rope(numbers)),
        custom_code="auto_map" in config,
    )


def read_quantization(value: Any) -> Quantization | None:
    """A ``quantization_config`` (or the quantize_config.json of older GPTQ and AWQ repositories)."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidRepository("config.json: quantization_config is not an object.")
    method = text(value, "quant_method") or text(value, "quant_type") or "unknown"
    return Quantization(method.lower(), number(value, ("bits", "w_bit")))


def _rope(numbers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rotary settings, in the spelling of Transformers 4 or 5."""
    for name in ("rope_scaling", "rope_parameters"):
        if isinstance(value := numbers.get(name), Mapping):
            return value
    return {}


def _rope_type(rope: Mapping[str, Any]) -> str:
    """The scaling's name; ``su`` is what Phi-3 called longrope at first."""
    name = text(rope, "rope_type") or text(rope, "type") or "default"
    return "longrope" if name == "su" else name


def _context(numbers: Mapping[str, Any]) -> int | None:
    """The longest context meant, in tokens.

    With ``linear`` and ``llama3`` scaling the stated maximum is the stretched one already; with ``dynamic`` it is the
    one before; with ``yarn`` it is seen either way.
    """
    stated, rope = number(numbers, _CONTEXT), _rope(numbers)
    if stated is None:
        return _UNSTATED_CONTEXT.get(str(numbers.get("model_type")))
    factor = rope.get("factor", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= 1000:
        return stated
    if _rope_type(rope) == "dynamic":
        return int(stated * factor)
    if _rope_type(rope) == "yarn":
        name = ("original_max_position_embeddings",)
        return max(stated, int((number(numbers, name) or number(rope, name) or stated) * factor))
    return stated


def _dtype(values: Mapping[str, Any]) -> str | None:
    name = text(values, "dtype") or text(values, "torch_dtype")
    return name.removeprefix("torch.") if name else None


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InvalidRepository("config.json: architectures is not a list of names.")
    return tuple(name[:100] for name in value[:8])
