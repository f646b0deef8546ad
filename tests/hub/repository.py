"""What the test hub publishes: folders, seen as repositories with commits, git blobs and LFS objects."""

from __future__ import annotations

import hashlib
import io
import json
import math
import mimetypes
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

LFS_SUFFIXES = frozenset({".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".model"})
LFS_THRESHOLD = 10 * 1024 * 1024


@dataclass(frozen=True)
class HubFile:
    """One file of one commit. `oid` is the git blob id: of the content, or of the pointer for an LFS file.

    The content of small files is kept, so that older commits stay what they were; LFS files are read from *source*.
    """

    path: str
    source: Path
    size: int
    oid: str
    sha256: str | None
    content: bytes | None = field(default=None, repr=False)

    def open(self) -> BinaryIO:
        return self.source.open("rb") if self.content is None else io.BytesIO(self.content)

    @property
    def etag(self) -> str:
        """As the hub gives it: SHA-256 of an LFS object, git blob SHA-1 otherwise."""
        return self.sha256 or self.oid

    @property
    def content_type(self) -> str:
        return mimetypes.guess_type(self.path)[0] or "application/octet-stream"

    @property
    def lfs(self) -> dict[str, Any] | None:
        if self.sha256 is None:
            return None
        return {"sha256": self.sha256, "size": self.size, "pointerSize": len(_pointer(self.sha256, self.size))}


@dataclass(frozen=True)
class Commit:
    """An immutable listing of files; its SHA is a function of their paths and contents."""

    sha: str
    files: dict[str, HubFile]


@dataclass
class HubRepository:
    """A model repository: branches that point at commits, and every commit ever published."""

    id: str
    gated: str | bool = False
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def publish(self, folder: Path, branch: str) -> Commit:
        """Reads *folder* and moves *branch* to a commit of what is in it now."""
        commit = read_commit(folder)
        self.commits[commit.sha] = commit
        self.branches[branch] = commit.sha
        return commit

    def commit(self, revision: str) -> Commit | None:
        return self.commits.get(self.branches.get(revision, revision))

    def model_info(self, commit: Commit, *, blobs: bool) -> dict[str, Any]:
        """The body of /api/models/{id}: what the hub derives from config.json, README.md and safetensors headers."""
        config = _read_json(commit.files.get("config.json"))
        licence = _licence(commit.files.get("README.md"))
        info: dict[str, Any] = {
            "_id": commit.sha[:24],
            "id": self.id,
            "modelId": self.id,
            "author": self.id.partition("/")[0] if "/" in self.id else None,
            "sha": commit.sha,
            "private": self.private,
            "gated": self.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "lastModified": "2025-01-01T00:00:00.000Z",
            "createdAt": "2025-01-01T00:00:00.000Z",
            "pipeline_tag": "text-generation",
            "library_name": "transformers",
            "tags": ["transformers", *([f"license:{licence}"] if licence else [])],
            "cardData": {"license": licence} if licence else {},
            "config": {key: config[key] for key in ("architectures", "model_type") if key in config},
            "siblings": [_sibling(file, blobs=blobs) for file in commit.files.values()],
            "usedStorage": sum(file.size for file in commit.files.values()),
        }
        if parameters := _safetensors_parameters(commit):
            info["safetensors"] = {"parameters": parameters, "total": sum(parameters.values())}
        return info

    def tree(self, commit: Commit, prefix: str, *, recursive: bool) -> list[dict[str, Any]]:
        """Entries under *prefix*, folders included, as /tree/{revision}/{prefix} lists them."""
        start = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        entries: dict[str, dict[str, Any]] = {}
        for path, file in commit.files.items():
            if not path.startswith(start):
                continue
            parents = path[len(start) :].split("/")[:-1]
            for depth in range(1, len(parents) + 1):
                folder = start + "/".join(parents[:depth])
                oid = hashlib.sha1(folder.encode(), usedforsecurity=False).hexdigest()
                entries.setdefault(folder, {"type": "directory", "oid": oid, "size": 0, "path": folder})
                if not recursive:
                    break
            if recursive or not parents:
                entries[path] = tree_entry(file)
        return list(entries.values())


def tree_entry(file: HubFile) -> dict[str, Any]:
    """A file as /tree and /paths-info describe it."""
    entry: dict[str, Any] = {"type": "file", "oid": file.oid, "size": file.size, "path": file.path}
    if lfs := file.lfs:
        entry["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    return entry


def read_commit(folder: Path) -> Commit:
    """Hashes every file under *folder* (hidden ones excepted) into a commit."""
    files = {}
    for source in sorted(folder.rglob("*")):
        relative = source.relative_to(folder)
        if source.is_file() and not any(part.startswith(".") for part in relative.parts):
            files[relative.as_posix()] = _hash_file(relative.as_posix(), source)
    listing = "\n".join(f"{file.oid} {path}" for path, file in files.items())
    return Commit(hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest(), files)


def _hash_file(path: str, source: Path) -> HubFile:
    size = source.stat().st_size
    lfs = source.suffix in LFS_SUFFIXES or size > LFS_THRESHOLD
    if not lfs:
        content = source.read_bytes()
        return HubFile(path, source, len(content), _git_blob_id(content), None, content)
    with source.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return HubFile(path, source, size, _git_blob_id(_pointer(sha256, size)), sha256)


def _git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _sibling(file: HubFile, *, blobs: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        entry |= {"blobId": file.oid, "size": file.size}
        if file.lfs:
            entry["lfs"] = file.lfs
    return entry


def _read_json(file: HubFile | None) -> dict[str, Any]:
    try:
        value = json.loads(file.open().read()) if file else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _licence(readme: HubFile | None) -> str | None:
    lines = readme.open().read().decode(errors="replace").splitlines() if readme else []
    if lines[:1] == ["---"]:
        for line in lines[1:]:
            if line.startswith("license:"):
                return line.partition(":")[2].strip()
            if line == "---":
                break
    return None


def _safetensors_parameters(commit: Commit) -> dict[str, int]:
    """Element counts by dtype over all safetensors headers, as the hub publishes them; none if a file is malformed."""
    counts: dict[str, int] = {}
    for file in commit.files.values():
        if file.path.endswith(".safetensors"):
            try:
                for tensor in _safetensors_header(file):
                    counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
            except (ValueError, KeyError, TypeError, AttributeError, struct.error):
                return {}
    return counts


def _safetensors_header(file: HubFile) -> list[dict[str, Any]]:
    with file.open() as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(min(length, file.size)))
    return [tensor for name, tensor in header.items() if name != "__metadata__"]
