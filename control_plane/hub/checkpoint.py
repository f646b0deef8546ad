"""Which files are the weights, how many bytes and how many parameters they are: from listings and headers, not data."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from control_plane.hub.config import DTYPE_BYTES, ModelConfig
from control_plane.hub.errors import InvalidRepository
from control_plane.hub.source import ModelSource, RepositoryFile, parse_object, read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
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
    """Find the safetensors weights of ``source`` and count them.

    :raises InvalidRepository: an index or header that is malformed, or names files that are not there.
    """
    files = {file.path: file for file in source.files}
    index = read_json(source, INDEX, limit=INDEX_LIMIT) if INDEX in files else None
    weights = _weight_files(files, index)
    elements = source.card.elements
    if elements is None and len(weights) == 1:
        elements = _count_header(source, weights[0])
    dtype = _prevalent(elements) or config.dtype
    if elements is not None:
        return Checkpoint(weights, _unpacked(elements, config), dtype)
    width = DTYPE_BYTES.get(dtype or "")
    total = index.get("metadata", {}).get("total_size") if index and isinstance(index.get("metadata"), dict) else None
    if width and isinstance(total, int | float) and not config.quantization:
        return Checkpoint(weights, int(total) // width, dtype)
    return Checkpoint(weights, None, dtype)


def _weight_files(files: Mapping[str, RepositoryFile], index: dict[str, Any] | None) -> tuple[RepositoryFile, ...]:
    """The files a loader reads: those of the index, or else model.safetensors, or else all in the top folder.

    Repositories often carry the same weights twice, in other formats (consolidated.safetensors, original/).
    """
    if index is not None:
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise InvalidRepository(f"{INDEX}: weight_map is not a table of file names.")
        if missing := sorted(set(weight_map.values()) - files.keys()):
            raise InvalidRepository(f"{INDEX} names {missing[0][:100]!r}, which the repository does not have.")
        return tuple(files[name] for name in sorted(set(weight_map.values())))
    if SINGLE in files:
        return (files[SINGLE],)
    return tuple(
        file
        for path, file in sorted(files.items())
        if PurePosixPath(path).suffix == ".safetensors" and "/" not in path and not path.startswith("consolidated")
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
