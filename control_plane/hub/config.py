"""config.json → dimensions. The one place that knows what Hugging Face's families call the same thing.

Plain JSON: transformers is never imported, and code that the config points at (``auto_map``) is noted, not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.hub.errors import InvalidRepository

#: A number above this in a config is nonsense, not a model.
_LARGEST = 1_000_000_000

_HIDDEN = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_HEAD_DIM = ("head_dim", "kv_channels", "attention_head_dim")
_INNER = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner")
_CONTEXT = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "n_ctx")
_VOCABULARY = ("vocab_size", "padded_vocab_size")

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
    """What a config.json says, in common terms; ``None`` where it says nothing.

    ``context`` is in tokens, stretched as the rotary scaling says.
    ``custom_code`` is true where the config points at Python files of the repository.
    """

    architectures: tuple[str, ...]
    family: str | None
    context: int | None
    hidden_size: int | None
    intermediate_size: int | None
    layers: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    vocabulary: int | None
    dtype: str | None
    quantization: Quantization | None
    rope_type: str
    activation: str | None
    custom_code: bool


def read_config(config: Mapping[str, Any]) -> ModelConfig:
    """Interpret a parsed config.json.

    A multimodal model's numbers are those of its language part (``text_config``).

    :raises InvalidRepository: a value of the wrong type or beyond reason.
    """
    text = config.get("text_config")
    numbers: Mapping[str, Any] = {**config, **text} if isinstance(text, Mapping) else config
    hidden, heads = _number(numbers, _HIDDEN), _number(numbers, _HEADS)
    inferred_head_dim = hidden // heads if hidden and heads else None
    return ModelConfig(
        architectures=_names(config.get("architectures")),
        family=_text(config, "model_type"),
        context=_context(numbers),
        hidden_size=hidden,
        intermediate_size=_number(numbers, _INNER),
        layers=_number(numbers, _LAYERS),
        heads=heads,
        kv_heads=_kv_heads(numbers, heads),
        head_dim=_number(numbers, _HEAD_DIM) or inferred_head_dim,
        vocabulary=_number(numbers, _VOCABULARY),
        dtype=_dtype(numbers),
        quantization=read_quantization(config.get("quantization_config")),
        rope_type=_rope_type(_rope(numbers)),
        activation=_text(numbers, "hidden_act"),
        custom_code="auto_map" in config,
    )


def read_quantization(value: Any) -> Quantization | None:
    """A ``quantization_config`` (or the quantize_config.json of older GPTQ and AWQ repositories)."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidRepository("config.json: quantization_config is not an object.")
    method = _text(value, "quant_method") or _text(value, "quant_type") or "unknown"
    return Quantization(method.lower(), _number(value, ("bits", "w_bit")))


def _rope(numbers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rotary settings, in the spelling of Transformers 4 or 5."""
    for name in ("rope_scaling", "rope_parameters"):
        if isinstance(value := numbers.get(name), Mapping):
            return value
    return {}


def _rope_type(rope: Mapping[str, Any]) -> str:
    return _text(rope, "rope_type") or _text(rope, "type") or "default"


def _context(numbers: Mapping[str, Any]) -> int | None:
    """The longest context meant, in tokens.

    With ``linear`` and ``llama3`` scaling the stated maximum is the stretched one already; with ``dynamic`` it is the
    one before; with ``yarn`` it is seen either way.
    """
    stated, rope = _number(numbers, _CONTEXT), _rope(numbers)
    factor = rope.get("factor", 1.0)
    if stated is None or isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= 1000:
        return stated
    if _rope_type(rope) == "dynamic":
        return int(stated * factor)
    if _rope_type(rope) == "yarn":
        name = ("original_max_position_embeddings",)
        return max(stated, int((_number(numbers, name) or _number(rope, name) or stated) * factor))
    return stated


def _kv_heads(numbers: Mapping[str, Any], heads: int | None) -> int | None:
    """Falcon, GPTBigCode and ChatGLM say ``multi_query`` and give no number, or one that only counts with it."""
    if numbers.get("multi_query") is True and numbers.get("new_decoder_architecture") is not True:
        return 1
    attention = numbers.get("attn_config")
    if isinstance(attention, Mapping) and (nested := _number(attention, ("kv_n_heads",))):
        return nested
    return _number(numbers, _KV_HEADS) or heads


def _number(values: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of ``names`` that has a value, a whole number from 1 up."""
    for name in names:
        value = values.get(name)
        if value is None or isinstance(value, list):  # a list: one number per layer (DeciLM, OpenELM)
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
            raise InvalidRepository(f"config.json: {name} is {str(value)[:50]!r}, not a sensible whole number.")
        return value
    return None


def _dtype(values: Mapping[str, Any]) -> str | None:
    name = _text(values, "dtype") or _text(values, "torch_dtype")
    return name.removeprefix("torch.") if name else None


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRepository(f"config.json: {name} is not text.")
    return value[:100] if value else None


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InvalidRepository("config.json: architectures is not a list of names.")
    return tuple(name[:100] for name in value[:8])
