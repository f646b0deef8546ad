"""The weight files of a model folder: safetensors, or PyTorch's own format read without running anything in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from serving_image.errors import StartupError

_NAMED_IN_ERROR = 5
_FORBIDDEN = re.compile(r"(?:Unsupported global:|unsupported) GLOBAL (\S+)")
"""What a file asks for beside tensors, out of PyTorch's refusal."""
_SAFETENSORS_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class _Format(NamedTuple):
    """File names of one way to store weights."""

    index_file: str
    single_file: str
    pattern: str


_FORMATS = (
    _Format("model.safetensors.index.json", "model.safetensors", "*.safetensors"),
    _Format("pytorch_model.bin.index.json", "pytorch_model.bin", "pytorch_model*.bin"),
)


def weight_files(folder: Path, *, only_safetensors: bool = False) -> list[Path]:
    """The weight files of a model folder, sorted; safetensors where there are any.

    :raises StartupError: there are none, or one that the index lists is absent.
    """
    formats = _FORMATS[:1] if only_safetensors else _FORMATS
    for layout in formats:
        index = folder / layout.index_file
        if index.is_file():
            return _indexed_files(index)
        if (folder / layout.single_file).is_file():
            return [folder / layout.single_file]
        if files := sorted(folder.glob(layout.pattern)):
            return files
    raise StartupError(
        f"{folder} has no weights: no {' and no '.join(layout.pattern for layout in formats)}.",
        "Finish downloading the model, or try --load-format dummy for random weights.",
    )


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartupError(f"{index} is not an index of weights: {error}.", "Download the model again.") from error
    # A file name from a download must not lead out of its folder.
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise StartupError(f"{index} lists a file outside its folder.", "Use another copy of the model.")
    files = sorted(index.parent / name for name in names)
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise StartupError(
            f"{index.parent} lacks {some(absent)}, which {index.name} lists.", "Finish downloading the model."
        )
    return files


class _File(Protocol):
    """One open file."""

    def names(self) -> list[str]: ...

    def shape(self, name: str, /) -> tuple[int, ...]: ...

    def dtype(self, name: str, /) -> torch.dtype | None: ...

    def read(self, name: str, /) -> Tensor: ...


class _SafetensorsFile:
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def names(self) -> list[str]:
        return list(self._handle.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._handle.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype | None:
        return _SAFETENSORS_TYPES.get(str(self._handle.get_slice(name).get_dtype()))

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._handle.get_tensor(name)
        return tensor


class _TorchFile:
    """Tensors of a file that ``torch.save`` wrote, mapped where its format allows it."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype | None:
        dtype = self._tensors[name].dtype
        return dtype if dtype in _SAFETENSORS_TYPES.values() else None

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    if path.suffix != ".bin":
        try:
            handle = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise StartupError(f"{path} is damaged: {error}.", "Download the model again.") from error
        with handle as opened:
            yield _SafetensorsFile(opened)
        return
    yield _TorchFile(_load_tensors(path))


def _load_tensors(path: Path) -> dict[str, Tensor]:
    """What ``torch.save`` wrote, if it is tensors by name and nothing else."""
    try:
        loaded = _torch_load(path)
    except Exception as error:  # whatever a damaged or hostile file makes of its reader
        raise StartupError(
            f"{path} cannot be loaded as plain tensors: {_reason(error)}.",
            "Use a checkpoint in safetensors format; code in weight files is never run.",
        ) from error
    is_plain = isinstance(loaded, dict) and all(
        isinstance(name, str) and isinstance(part, Tensor) for name, part in loaded.items()
    )
    if not is_plain:
        raise StartupError(f"{path} does not hold tensors by name.", "Use a checkpoint in safetensors format.")
    return {name: part.detach() for name, part in loaded.items()}


def _reason(error: Exception) -> str:
    """In place of PyTorch's own text, which advises to run the code."""
    found = _FORBIDDEN.search(str(error))
    return f"it asks for {found[1]}" if found else f"it is damaged ({type(error).__name__})"


def _torch_load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        # The format of before PyTorch 1.6 cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True)


class _Location(NamedTuple):
    """Where a tensor is, and what it is called there."""

    file: _File
    name: str


@dataclass(frozen=True)
class Checkpoint:
    """Open weight files and where each tensor is. Tensors are mapped, not read, until they are copied."""

    location: Mapping[str, _Location]
    folder: Path

    @classmethod
    def open(cls, files: list[Path], stack: ExitStack) -> Checkpoint:
        """Open ``files`` until ``stack`` closes.

        :raises StartupError: a file is damaged.
        """
        location: dict[str, _Location] = {}
        for path in files:
            file = stack.enter_context(_opened(path))
            location.update({name: _Location(file, name) for name in file.names()})
        return cls(location, files[0].parent)

    def renamed(self, rename: Callable[[str], str]) -> Checkpoint:
        """The same tensors under other names.

        :raises StartupError: two would have one name.
        """
        location: dict[str, _Location] = {}
        for name, where in self.location.items():
            other = location.setdefault(rename(name), where)
            if other is not where:
                raise StartupError(
                    f"The checkpoint in {self.folder} stores one tensor twice: {other.name} and {where.name}.",
                    "Remove the file that does not belong to it.",
                )
        return Checkpoint(location, self.folder)

    def stored_name(self, name: str) -> str:
        """What the tensor is called in its file."""
        return self.location[name].name

    def shape(self, name: str) -> tuple[int, ...]:
        where = self.location[name]
        return where.file.shape(where.name)

    def dtype_of(self, name: str) -> torch.dtype | None:
        """A tensor's dtype; None if it is no floating dtype that weights are taken from."""
        where = self.location[name]
        return where.file.dtype(where.name)

    def read(self, name: str) -> Tensor:
        """The tensor, mapped from its file."""
        where = self.location[name]
        return where.file.read(where.name)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the largest tensor of weights: small ones, such as norms, are often kept wider."""
        floating = [name for name in self.location if self.dtype_of(name) is not None]
        largest = max(floating, key=lambda name: torch.Size(self.shape(name)).numel(), default=None)
        dtype = None if largest is None else self.dtype_of(largest)
        if dtype is None:
            raise StartupError(
                f"The checkpoint in {self.folder} stores no floating-point numbers.", "Use the unquantized checkpoint."
            )
        return dtype


def some(names: list[str]) -> str:
    """The first of many names, and how many more there are."""
    rest = len(names) - _NAMED_IN_ERROR
    return ", ".join(names[:_NAMED_IN_ERROR]) + (f" and {rest} more" if rest > 0 else "")
