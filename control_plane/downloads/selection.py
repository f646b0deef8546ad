"""Which files of a repository are fetched: weights and what describes them; never code.

PyTorch's own format is fetched where there are no safetensors: the engine unpickles tensors and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from control_plane.errors import Invalid
from control_plane.hub.ids import is_safe_path
from control_plane.hub.source import RepositoryFile

WANTED = ("*.safetensors", "pytorch_model*.bin", "*.json", "*.model", "*.tiktoken", "*.txt", "*.jinja")

#: Folders in which authors keep the same weights once more, for other programs.
_COPIES = frozenset({"original", "onnx", "openvino", "metal", "gguf", "coreml", "mlx"})


class NothingToServe(Invalid):
    """The repository has no weights that Slipway would load."""

    code = "no_safetensors"
    next_step = "Pick a repository with *.safetensors or pytorch_model*.bin files."


class UnsafeRepository(Invalid):
    """A file's name would leave the folder it belongs in, or nothing tells whether its bytes are right."""

    code = "unsafe_repository"
    next_step = "Pick another repository, or tell its owner."


def select_files(files: Iterable[RepositoryFile]) -> list[RepositoryFile]:
    """The files to fetch, in the order of their paths.

    :raises UnsafeRepository: a path or an ETag that cannot be trusted.
    :raises NothingToServe: no weights among them.
    """
    wanted = sorted((file for file in files if _is_wanted(file.path)), key=lambda file: file.path)
    for file in wanted:
        _check(file)
    weights = [file for file in wanted if file.path.endswith(".safetensors")]
    if not weights:
        if not any(file.path.endswith(".bin") for file in wanted):
            raise NothingToServe("the repository holds no *.safetensors weights and no pytorch_model*.bin")
        return wanted
    wanted = [file for file in wanted if not _is_pytorch(file.path)]
    if any(not _is_consolidated(file.path) for file in weights):
        wanted = [file for file in wanted if not _is_consolidated(file.path)]
    return wanted


def _is_wanted(path: str) -> bool:
    *folders, name = path.split("/")
    return not _COPIES.intersection(folders) and any(fnmatchcase(name, pattern) for pattern in WANTED)


def _is_pytorch(path: str) -> bool:
    """The weights in PyTorch's own format, or their index."""
    return fnmatchcase(PurePosixPath(path).name, "pytorch_model*.bin*")


def _is_consolidated(path: str) -> bool:
    """``consolidated*.safetensors``: Mistral's own layout of the same weights, beside the shards."""
    return fnmatchcase(PurePosixPath(path).name, "consolidated*.safetensors*")


def _check(file: RepositoryFile) -> None:
    if not is_safe_path(file.path):
        raise UnsafeRepository(f"the repository names a file {file.path[:200]!r}, which is not a safe path")
    digest_length = 64 if file.sha256 else 40
    if len(file.etag) != digest_length or not set(file.etag) <= set("0123456789abcdef"):
        raise UnsafeRepository(f"the hub gives no usable checksum for {file.path}")
    if file.sha256 not in {None, file.etag}:
        raise UnsafeRepository(f"the hub contradicts itself about the checksum of {file.path}")
