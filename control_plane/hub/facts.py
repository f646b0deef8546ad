"""Facts about a model: everything Slipway decides by before it spends anything. Read from JSON, pinned to a commit."""

from __future__ import annotations

from dataclasses import dataclass, field

from control_plane.hub.checkpoint import read_checkpoint
from control_plane.hub.config import ModelConfig, Quantization, read_config, read_quantization
from control_plane.hub.errors import NotAModel
from control_plane.hub.source import ModelSource, RepositoryFile, read_json

CONFIG_LIMIT = 1_000_000
TOKENIZER_CONFIG_LIMIT = 5_000_000
#: Where GPTQ and AWQ repositories put it before it moved into config.json.
_OLD_QUANTIZATION_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
_CHAT_TEMPLATE_FILES = frozenset({"chat_template.jinja", "chat_template.json"})


@dataclass(frozen=True)
class ModelFacts:
    """What is known of one model at one commit; ``None`` where its files do not say.

    Sizes in bytes, ``context`` in tokens. ``weight_bytes`` counts the safetensors files that a loader reads, 0 if there
    are none. ``custom_code`` notes that the repository wants its own Python run; Slipway never does.
    """

    id: str
    sha: str
    architectures: tuple[str, ...]
    family: str | None
    parameters: int | None
    weight_bytes: int
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
    license: str | None
    gated: bool
    rope_type: str
    activation: str | None
    has_chat_template: bool
    custom_code: bool
    files: tuple[RepositoryFile, ...] = field(repr=False)

    @property
    def architecture(self) -> str | None:
        """The class name that the config puts first."""
        return self.architectures[0] if self.architectures else None

    @property
    def has_safetensors(self) -> bool:
        """Whether there are weights that can be loaded without running code."""
        return self.weight_bytes > 0


def read_facts(model: str, source: ModelSource) -> ModelFacts:
    """Gather the facts of ``source``.

    :raises NotAModel: no config.json.
    :raises InvalidRepository: a file that is malformed, too large or contradictory.
    """
    paths = {file.path for file in source.files}
    if "config.json" not in paths:
        raise _not_a_model(model, paths)
    config = read_config(read_json(source, "config.json", limit=CONFIG_LIMIT))
    checkpoint = read_checkpoint(source, config)
    return ModelFacts(
        id=model,
        sha=source.sha,
        architectures=config.architectures,
        family=config.family,
        parameters=checkpoint.parameters,
        weight_bytes=checkpoint.bytes,
        context=config.context,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        vocabulary=config.vocabulary,
        dtype=checkpoint.dtype,
        quantization=_quantization(source, config, paths),
        license=source.card.license,
        gated=source.card.gated,
        rope_type=config.rope_type,
        activation=config.activation,
        has_chat_template=_has_chat_template(source, paths),
        custom_code=config.custom_code,
        files=source.files,
    )


def _quantization(source: ModelSource, config: ModelConfig, paths: set[str]) -> Quantization | None:
    if config.quantization:
        return config.quantization
    for path, method in _OLD_QUANTIZATION_FILES.items():
        if path in paths:
            found = read_quantization(read_json(source, path, limit=CONFIG_LIMIT))
            return Quantization(method, found.bits if found else None)
    return None


def _has_chat_template(source: ModelSource, paths: set[str]) -> bool:
    if paths & _CHAT_TEMPLATE_FILES:
        return True
    if "tokenizer_config.json" not in paths:
        return False
    return bool(read_json(source, "tokenizer_config.json", limit=TOKENIZER_CONFIG_LIMIT).get("chat_template"))


def _not_a_model(model: str, paths: set[str]) -> NotAModel:
    """Says what the repository is instead, where its files tell."""
    if "adapter_config.json" in paths:
        return NotAModel(f"{model} is an adapter (LoRA), not a whole model.", "Launch the model it was trained on.")
    if "model_index.json" in paths:
        return NotAModel(f"{model} is a pipeline for images or video, not a language model.")
    if any(path.endswith(".gguf") for path in paths):
        return NotAModel(
            f"{model} has its weights in GGUF files only.", "Launch the repository it was converted from (safetensors)."
        )
    return NotAModel(f"{model} has no config.json: it is not a model in Hugging Face's format.")
