"""The Hugging Face cache on disk, as huggingface_hub and transformers read it.

::

    <cache>/models--org--name/
        blobs/<etag>                            a file's bytes, under the hub's own checksum
        snapshots/<commit>/config.json          ─► ../../blobs/<etag>   (relative link)
        refs/main                               the commit that a branch stood for
    <cache>/.slipway-parts/<etag>/              bytes on their way (see parts.py)

A blob appears by one rename, after its checksum was verified; hence "a blob of the right size" means "done".
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from control_plane.hub.ids import ModelId, is_commit_sha, is_safe_path, parse_revision
from control_plane.hub.source import RepositoryFile

PARTS = ".slipway-parts"


@dataclass(frozen=True)
class ModelCache:
    """One model's part of the cache at ``root``.

    :raises InvalidModelId: ``model`` is not a repository id.
    """

    root: Path
    model: str

    def __post_init__(self) -> None:
        ModelId.parse(self.model)

    @property
    def folder(self) -> Path:
        """``models--org--name``."""
        return self.root / f"models--{self.model.replace('/', '--')}"

    def blob(self, etag: str) -> Path:
        """Where the bytes of a finished file are."""
        return self.folder / "blobs" / etag

    def part(self, etag: str) -> Path:
        """Where the bytes of an unfinished file are: shared by all models, for the same file is often in several."""
        return self.root / PARTS / etag

    def snapshot(self, commit_sha: str) -> Path:
        """The folder that a program is given.

        :raises ValueError: not a commit SHA.
        """
        if not is_commit_sha(commit_sha):
            raise ValueError(f"{commit_sha!r} is not a commit SHA")
        return self.folder / "snapshots" / commit_sha

    def has_blob(self, etag: str, size: int) -> bool:
        """Whether a file is already here, whole."""
        return _size(self.blob(etag)) == size

    def is_complete(self, commit_sha: str, files: Iterable[RepositoryFile]) -> bool:
        """Whether a snapshot has all of ``files``, each in full size."""
        snapshot = self.snapshot(commit_sha)
        return all(_size(snapshot / file.path) == file.size for file in files)

    def add_blob(self, etag: str, content: Path) -> None:
        """Move verified ``content``, which lies in the same file system, into the cache."""
        blob = self.blob(etag)
        blob.parent.mkdir(parents=True, exist_ok=True)
        _sync(content)  # else a power failure could leave a name without its bytes, and the size alone would not tell
        content.replace(blob)

    def link(self, commit_sha: str, files: Iterable[RepositoryFile]) -> Path:
        """Make the snapshot of ``files``, whose blobs are here; returns its folder."""
        snapshot = self.snapshot(commit_sha)
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in files:
            if not is_safe_path(file.path):
                raise ValueError(f"{file.path!r} is not a safe path")
            name = snapshot / file.path
            name.parent.mkdir(parents=True, exist_ok=True)
            target = os.path.relpath(self.blob(file.etag), name.parent)
            _replace(name, partial(os.symlink, target))
        return snapshot

    def set_ref(self, revision: str, commit_sha: str) -> None:
        """Record what a branch or tag stood for, so that offline programs find the snapshot by its name."""
        revision = parse_revision(revision)
        if is_commit_sha(revision):
            return
        name = self.folder / "refs" / revision
        name.parent.mkdir(parents=True, exist_ok=True)
        _replace(name, lambda temporary: temporary.write_text(commit_sha))


def free_bytes(folder: Path) -> int:
    """Bytes that this user can still write in the file system where ``folder`` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _replace(name: Path, make: Callable[[Path], object]) -> None:
    """Let ``make`` create a file beside ``name`` and rename it: a reader never meets half of it."""
    temporary = name.with_name(f".{name.name[:100]}.{uuid4().hex}")
    make(temporary)
    temporary.replace(name)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
