"""Which architectures the decoder serves, and by which module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import cast

from serving_image.errors import StartupError
from serving_image.models import architectures
from serving_image.models.config import DecoderConfig
from serving_image.models.description import Architecture, ModelDescription
from serving_image.models.hf_config import HFConfig


@cache
def families() -> dict[str, ModuleType]:
    """The modules of ``architectures`` by name: every file there that states ``ARCHITECTURES``."""
    found = [
        import_module(f"{architectures.__name__}.{module.name}") for module in iter_modules(architectures.__path__)
    ]
    return {module.__name__.rpartition(".")[2]: module for module in found if hasattr(module, "ARCHITECTURES")}


@cache
def native_architectures() -> dict[str, Architecture]:
    """Every architecture that the decoder serves, by its name in ``config.json``."""
    return {name: cast(Architecture, module) for module in families().values() for name in module.ARCHITECTURES}


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose architecture the engine serves.

    :ivar description: what the decoder needs to know; None: Transformers runs the model.
    """

    path: Path
    config: HFConfig
    description: ModelDescription | None

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Read the folder's configuration.

        :raises StartupError: it is not a model, or not one that the engine serves.
        """
        if not path.is_dir():
            raise StartupError(f"{path} is not a folder.", "Give the folder that holds the model's config.json.")
        config = HFConfig.load(path)
        if config.quantization_method is not None:
            raise StartupError(
                f'The checkpoint is quantized with "{config.quantization_method}", which is not supported.',
                "Use the unquantized checkpoint.",
            )
        architecture = native_architectures().get(config.architecture)
        if architecture is not None:
            return cls(path, config, architecture.describe(config))
        _check_fallback(config.architecture)
        return cls(path, config, None)

    @property
    def decoder(self) -> DecoderConfig:
        """The decoder's configuration.

        :raises ValueError: Transformers runs the model.
        """
        if self.description is None:
            raise ValueError(f"{self.config.architecture} is no architecture of the decoder")
        return self.description.decoder


def _check_fallback(architecture: str) -> None:
    """:raises StartupError: Transformers cannot run the architecture on a paged cache; the reason is named."""
    from serving_image.models.transformers_backend import why_not  # noqa: PLC0415 - seconds that native models save

    reason = why_not(architecture)
    if reason is not None:
        raise StartupError(
            f"Architecture {architecture} is not supported: it {reason}.",
            "Use a decoder-only model; docs/models.md lists the architectures. Native: "
            f"{', '.join(sorted(native_architectures()))}.",
        )
