"""Which architectures the engine serves, and by which module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serving_image.errors import StartupError
from serving_image.models.architectures import llama
from serving_image.models.config import DecoderConfig
from serving_image.models.hf_config import HFConfig
from serving_image.models.weights import Source


class Architecture(Protocol):
    """What a module in ``architectures`` provides."""

    def decoder_config(self, config: HFConfig, /) -> DecoderConfig: ...

    def sources(self, config: DecoderConfig, /) -> dict[str, tuple[Source, ...]]: ...

    def is_redundant(self, config: DecoderConfig, name: str, /) -> bool: ...


ARCHITECTURES: dict[str, Architecture] = {"LlamaForCausalLM": llama}


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose architecture the engine serves."""

    path: Path
    decoder: DecoderConfig
    architecture: Architecture
    stated_dtype: str | None

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Read the folder's configuration.

        :raises StartupError: it is not a model, or not one that the engine serves.
        """
        if not path.is_dir():
            raise StartupError(f"{path} is not a folder.", "Give the folder that holds the model's config.json.")
        config = HFConfig.load(path)
        architecture = ARCHITECTURES.get(config.architecture)
        if architecture is None:
            raise StartupError(
                f"Architecture {config.architecture} is not supported.",
                f"Use a model with one of: {', '.join(sorted(ARCHITECTURES))}.",
            )
        if config.quantization_method is not None:
            raise StartupError(
                f'The checkpoint is quantized with "{config.quantization_method}", which is not supported.',
                "Use the unquantized checkpoint.",
            )
        return cls(path, architecture.decoder_config(config), architecture, config.dtype)
