"""Facts about a model: everything Slipway decides by before it spends anything. Read from JSON, pinned to a commit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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

    ``weight_bytes`` counts the files that a loader reads, 0 if there are none; ``dtype`` is that of most of their
    numbers. ``config.custom_code`` notes that the repository wants its own Python run; Slipway never does.
    """

    id: str
    sha: str
    config: ModelConfig
    parameters: int | None
    weight_bytes: int
    dtype: str | None
    license: str | None
    gated: bool
    has_chat_template: bool
    files: tuple[RepositoryFile, ...] = field(repr=False)

    @property
    def has_weights(self) -> bool:
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
    config = replace(config, quantization=_quantization(source, config, paths))
    checkpoint = read_checkpoint(source, config)
    return ModelFacts(
        id=model,
        sha=source.sha,
        config=config,
        parameters=checkpoint.parameters,
        weight_bytes=checkpoint.bytes,
        dtype=checkpoint.dtype,
        license=source.card.license,
        gated=source.card.gated,
        has_chat_template=has_chat_template(source),
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


def has_chat_template(source: ModelSource) -> bool:
    """Whether the repository says itself how a conversation becomes a prompt."""
    paths = {file.path for file in source.files}
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
