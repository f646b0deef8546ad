"""Streaming safetensors loader: checkpoint files → canonical parameters, with proof that none is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from serving_image.errors import StartupError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
_PATTERN_LENGTH = 1_000_003
_NAMED_IN_ERROR = 5


class Source(NamedTuple):
    """A checkpoint tensor that fills the next ``rows`` rows of a canonical parameter."""

    name: str
    rows: int


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, sorted.

    :raises StartupError: there are none, or one that the index lists is absent.
    """
    index = folder / _INDEX
    if index.is_file():
        files = sorted({folder / name for name in _indexed_names(index)})
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise StartupError(
                f"{folder} lacks {_some(absent)}, which {_INDEX} lists.", "Finish downloading the model."
            )
        return files
    files = [folder / _SINGLE] if (folder / _SINGLE).is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise StartupError(
            f"{folder} has no safetensors weights.",
            "Convert the model to safetensors, or try --load-format dummy for random weights.",
        )
    return files


def _indexed_names(index: Path) -> set[str]:
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartupError(f"{index} is not a safetensors index: {error}.", "Download the model again.") from error
    # A file name from a download must not lead out of its folder.
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise StartupError(f"{index} lists a file outside its folder.", "Use another copy of the model.")
    return names


@dataclass(frozen=True)
class Checkpoint:
    """Open safetensors files and where each tensor is. Tensors are mapped, not read, until they are copied."""

    location: Mapping[str, Any]
    files: tuple[Path, ...]

    @classmethod
    def open(cls, files: list[Path], stack: ExitStack) -> Checkpoint:
        """Open ``files`` until ``stack`` closes.

        :raises StartupError: a file is damaged.
        """
        location: dict[str, Any] = {}
        for file in files:
            try:
                handle = stack.enter_context(safe_open(file, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise StartupError(f"{file} is damaged: {error}.", "Download the model again.") from error
            location.update(dict.fromkeys(handle.keys(), handle))
        return cls(location, tuple(files))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.location[name].get_slice(name).get_shape())

    def stored_type(self, name: str) -> str:
        """The element type in safetensors' notation, such as ``BF16``."""
        return str(self.location[name].get_slice(name).get_dtype())

    def read(self, name: str) -> Tensor:
        """The tensor, mapped from its file."""
        tensor: Tensor = self.location[name].get_tensor(name)
        return tensor

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the largest tensor: small ones, such as norms, are often kept wider."""
        largest = max(self.location, key=lambda name: torch.Size(self.shape(name)).numel())
        return self.read(largest).dtype


def check_complete(
    checkpoint: Checkpoint,
    shapes: Mapping[str, tuple[int, ...]],
    sources: Mapping[str, tuple[Source, ...]],
    is_redundant: Callable[[str], bool],
) -> None:
    """Prove, from the files' headers alone, that every parameter will be filled exactly and no tensor is left over.

    :raises StartupError: naming the tensors that are missing, unexpected or of another shape.
    """
    wanted = {source.name: (source.rows, *shape[1:]) for name, shape in shapes.items() for source in sources[name]}
    missing = sorted(wanted.keys() - checkpoint.location.keys())
    if missing:
        raise _mismatch(checkpoint, "lacks", missing)
    unexpected = sorted(name for name in checkpoint.location.keys() - wanted.keys() if not is_redundant(name))
    if unexpected:
        raise _mismatch(checkpoint, "has unexpected", unexpected)
    not_floating = [
        f"{name} as {checkpoint.stored_type(name)}"
        for name in sorted(wanted)
        if checkpoint.stored_type(name) not in _FLOATING
    ]
    if not_floating:
        raise _mismatch(checkpoint, "stores", not_floating)
    wrong = [
        f"{name} {list(checkpoint.shape(name))} instead of {list(shape)}"
        for name, shape in wanted.items()
        if checkpoint.shape(name) != shape
    ]
    if wrong:
        raise _mismatch(checkpoint, "has the wrong shape for", wrong)


def iter_parameters(
    checkpoint: Checkpoint,
    shapes: Mapping[str, tuple[int, ...]],
    sources: Mapping[str, tuple[Source, ...]],
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[tuple[str, Tensor]]:
    """Yield every canonical parameter once, in ``dtype``, on ``device``, in the order of ``shapes``.

    On a CPU a parameter with a single source of the right dtype is a view of the mapped file: whoever keeps it must
    copy it. To a GPU each source is copied from the mapped file, and joined with others there.
    """
    for name, shape in shapes.items():
        parts = sources[name]
        if len(parts) == 1:
            yield name, checkpoint.read(parts[0].name).to(device, dtype)
            continue
        fused = torch.empty(shape, dtype=dtype, device=device)
        row = 0
        for part in parts:
            fused[row : row + part.rows].copy_(checkpoint.read(part.name))
            row += part.rows
        yield name, fused


def iter_random_parameters(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, seed: int, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """Random parameters on ``device`` for ``--load-format dummy``: norms 1, biases 0, matrices normal with deviation
    0.02; the same ones on every device.

    Matrices are pieces of one long pattern, each from another offset: drawing every number would take longer than
    reading a checkpoint (1.3 s for 246M parameters).
    """
    generator = torch.Generator().manual_seed(seed)
    # A prime length, so that the rows of a matrix, whatever its width, do not repeat.
    pattern = torch.empty(_PATTERN_LENGTH).normal_(0, 0.02, generator=generator).to(device, dtype)
    for name, shape in shapes.items():
        if name.endswith("norm.weight"):
            yield name, torch.ones(shape, dtype=dtype, device=device)
        elif name.endswith(".bias"):
            yield name, torch.zeros(shape, dtype=dtype, device=device)
        else:
            size = torch.Size(shape).numel()
            offset = int(torch.randint(_PATTERN_LENGTH, (1,), generator=generator))
            yield name, pattern.repeat((offset + size) // _PATTERN_LENGTH + 1)[offset : offset + size].view(shape)


def _mismatch(checkpoint: Checkpoint, verb: str, names: list[str]) -> StartupError:
    folder = checkpoint.files[0].parent
    return StartupError(
        f"The checkpoint in {folder} {verb} {_some(names)}.",
        "Its files do not belong to its config.json; download the model again.",
    )


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED_IN_ERROR
    return ", ".join(names[:_NAMED_IN_ERROR]) + (f" and {rest} more" if rest > 0 else "")
