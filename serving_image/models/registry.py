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
from serving_image.models.description import Architecture
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import TensorNames


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
    """A model folder whose architecture the engine serves."""

    path: Path
    decoder: DecoderConfig
    names: TensorNames
    stated_dtype: str | None

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Read the folder's configuration.

        :raises StartupError: it is not a model, or not one that the engine serves.
        """
        if not path.is_dir():
            raise StartupError(f"{path} is not a folder.", "Give the folder that holds the model's config.json.")
        config = HFConfig.load(path)
        architecture = native_architectures().get(config.architecture)
        if architecture is None:
            raise StartupError(
                f"Architecture {config.architecture} is not supported.",
                f"Use a model with one of: {', '.join(sorted(native_architectures()))}.",
            )
        if config.quantization_method is not None:
            raise StartupError(
                f'The checkpoint is quantized with "{config.quantization_method}", which is not supported.',
                "Use the unquantized checkpoint.",
            )
        description = architecture.describe(config)
        return cls(path, description.decoder, description.names, config.dtype)
