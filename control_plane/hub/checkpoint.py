"""Which files are the weights, how many bytes and how many parameters they are: from listings and headers, not data."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from control_plane.hub.config import DTYPE_BYTES, ModelConfig
from control_plane.hub.errors import InvalidRepository
from control_plane.hub.source import ModelSource, RepositoryFile, parse_object, read_json
from control_plane.hub.values import mapping

INDEX_LIMIT = 50_000_000
HEADER_LIMIT = 25_000_000

#: safetensors' names for the dtypes of torch.
DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
}


class _Format(NamedTuple):
    """File names of one way to keep weights."""

    index_file: str
    single: str
    pattern: str


#: In the order in which the engine looks for them. PyTorch's own files are read as data; nothing in them is run.
_SAFETENSORS = _Format("model.safetensors.index.json", "model.safetensors", "*.safetensors")
_PYTORCH = _Format("pytorch_model.bin.index.json", "pytorch_model.bin", "pytorch_model*.bin")


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a repository. ``parameters`` is None where nothing tells; ``dtype`` is that of most of them."""

    files: tuple[RepositoryFile, ...]
    parameters: int | None
    dtype: str | None

    @property
    def bytes(self) -> int:
        """Size of all weight files."""
        return sum(file.size for file in self.files)


def read_checkpoint(source: ModelSource, config: ModelConfig) -> Checkpoint:
    """Find the weights of ``source``, safetensors where there are any, and count them.

    :raises InvalidRepository: an index or header that is malformed, or names files that are not there.
    """
    files = {file.path: file for file in source.files}
    for layout in (_SAFETENSORS, _PYTORCH):
        index = read_json(source, layout.index_file, limit=INDEX_LIMIT) if layout.index_file in files else None
        if weights := _weight_files(files, layout, index):
            return _counted(source, weights, index, config)
    return Checkpoint((), None, config.dtype)


def _counted(
    source: ModelSource, weights: tuple[RepositoryFile, ...], index: dict[str, Any] | None, config: ModelConfig
) -> Checkpoint:
    elements = source.card.elements
    if elements is None and len(weights) == 1 and weights[0].path.endswith(".safetensors"):
        elements = _count_header(source, weights[0])
    dtype = _prevalent(elements) or config.dtype
    if elements is not None:
        return Checkpoint(weights, _unpacked(elements, config), dtype)
    width = DTYPE_BYTES.get(dtype or "")
    total = mapping(mapping(index).get("metadata")).get("total_size")
    if total is None and len(weights) == 1:
        total = weights[0].size  # with a header of some kilobytes
    if width and isinstance(total, int | float) and not config.quantization:
        return Checkpoint(weights, int(total) // width, dtype)
    return Checkpoint(weights, None, dtype)


def _weight_files(
    files: Mapping[str, RepositoryFile], layout: _Format, index: dict[str, Any] | None
) -> tuple[RepositoryFile, ...]:
    """The files a loader reads: those of the index, or else the single one, or else all in the top folder.

    Repositories often carry the same weights twice, in other formats (consolidated.safetensors, original/).
    """
    if index is not None:
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise InvalidRepository(f"{layout.index_file}: weight_map is not a table of file names.")
        if missing := sorted(set(weight_map.values()) - files.keys()):
            raise InvalidRepository(
                f"{layout.index_file} names {missing[0][:100]!r}, which the repository does not have."
            )
        return tuple(files[name] for name in sorted(set(weight_map.values())))
    if layout.single in files:
        return (files[layout.single],)
    return tuple(
        file
        for path, file in sorted(files.items())
        if "/" not in path and fnmatchcase(path, layout.pattern) and not path.startswith("consolidated")
    )


def _count_header(source: ModelSource, file: RepositoryFile) -> dict[str, int]:
    """Elements by dtype, from a safetensors header: eight bytes of length, then JSON."""
    prefix = source.read(file.path, limit=8, length=8)
    if len(prefix) < 8:
        raise InvalidRepository(f"{file.path} is not a safetensors file: it has {len(prefix)} bytes.")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(HEADER_LIMIT, file.size - 8):
        raise InvalidRepository(f"{file.path} is not a safetensors file: its header would be {length:,} bytes long.")
    header = parse_object(source.read(file.path, limit=length, start=8, length=length), file.path)
    counts: dict[str, int] = {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = str(tensor["dtype"]), [int(extent) for extent in tensor["shape"]]
        except (KeyError, TypeError, ValueError):
            raise InvalidRepository(f"{file.path}: the header's entry {name[:100]!r} is malformed.") from None
        counts[dtype] = counts.get(dtype, 0) + math.prod(shape)
    return counts


def _prevalent(elements: Mapping[str, int] | None) -> str | None:
    """The dtype of most numbers, packed integers aside."""
    known = {name: count for name, count in (elements or {}).items() if name in DTYPE_NAMES}
    return DTYPE_NAMES[max(known, key=lambda name: known[name])] if known else None


def _unpacked(elements: Mapping[str, int], config: ModelConfig) -> int:
    """Parameters; GPTQ and AWQ pack several into one 32-bit integer."""
    bits = config.quantization.bits if config.quantization else None
    per_integer = 32 // bits if bits and bits < 32 else 1
    return sum(count * per_integer if dtype == "I32" else count for dtype, count in elements.items())
