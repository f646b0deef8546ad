"""From a model folder to a model on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kernels.linear import Layout
from serving_image.models.checkpoint import Checkpoint, weight_files
from serving_image.models.decoder import Decoder
from serving_image.models.description import ModelDescription
from serving_image.models.interface import Model
from serving_image.models.parameters import parameter_specs
from serving_image.models.registry import ModelFolder
from serving_image.models.weights import check_complete, iter_parameters, iter_random_parameters


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """How a model is loaded.

    :ivar load_format: ``auto`` takes safetensors, else PyTorch's files; ``dummy`` gives random weights, drawn from
        ``seed``.
    :ivar choose_dtype: from the dtype that is stored to the one to compute in.
    :ivar layout: what becomes of the decoder's matrices; Transformers keeps its own.
    """

    device: torch.device
    layout: Layout
    choose_dtype: Callable[[torch.dtype], torch.dtype]
    load_format: Literal["auto", "safetensors", "dummy"]
    seed: int


def load_model(folder: ModelFolder, settings: LoadSettings) -> Model:
    """Read the weights, or draw them.

    :raises StartupError: weights are missing, left over, damaged or of another shape.
    """
    if folder.description is None:
        return _transformers_model(folder, settings)
    with _parameters(folder, folder.description, settings) as (parameters, dtype):
        return Decoder(folder.description.decoder, parameters, dtype, settings.device, settings.layout)


@contextmanager
def _parameters(
    folder: ModelFolder, description: ModelDescription, settings: LoadSettings
) -> Iterator[tuple[Iterator[tuple[str, Tensor]], torch.dtype]]:
    """The parameters' stream and dtype, while the files are open."""
    specs, device = parameter_specs(description.decoder), settings.device
    if settings.load_format == "dummy":
        dtype = settings.choose_dtype(_stated_dtype(folder))
        yield iter_random_parameters(specs, dtype, settings.seed, device), dtype
        return
    with ExitStack() as stack:
        checkpoint = Checkpoint.open(_files(folder, settings), stack)
        check_complete(checkpoint, specs, description.names, tied=description.decoder.tie_word_embeddings)
        dtype = settings.choose_dtype(checkpoint.dtype)
        yield iter_parameters(checkpoint, specs, description.names, dtype, device), dtype


def _transformers_model(folder: ModelFolder, settings: LoadSettings) -> Model:
    from serving_image.models import transformers_backend as backend  # noqa: PLC0415 - see the registry

    config = backend.describe(folder.path)
    if settings.load_format == "dummy":
        dtype = settings.choose_dtype(_stated_dtype(folder))
        return backend.random_transformers_model(folder.path, config, dtype, settings.device, settings.seed)
    with ExitStack() as stack:
        stored = Checkpoint.open(_files(folder, settings), stack).dtype
    return backend.load_transformers_model(folder.path, config, settings.choose_dtype(stored), settings.device)


def _files(folder: ModelFolder, settings: LoadSettings) -> list[Path]:
    return weight_files(folder.path, only_safetensors=settings.load_format == "safetensors")


def _stated_dtype(folder: ModelFolder) -> torch.dtype:
    stated = getattr(torch, folder.config.dtype or "bfloat16", torch.bfloat16)
    return stated if isinstance(stated, torch.dtype) else torch.bfloat16
