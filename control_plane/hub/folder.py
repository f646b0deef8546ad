"""A model in a folder on this machine: one that comes with Slipway, or a snapshot in the Hugging Face cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from control_plane.hub.errors import InvalidRepository
from control_plane.hub.source import ModelCard, RepositoryFile

_CARD_LIMIT = 1_000_000


@dataclass(frozen=True)
class FolderModel:
    """The files of ``folder`` as a model source. ``commit`` where the folder is a snapshot of a known commit."""

    folder: Path
    commit: str | None = None

    @cached_property
    def files(self) -> tuple[RepositoryFile, ...]:
        """All files but hidden ones; ETags are derived from names, sizes and times, which is enough to see a change."""
        found = []
        for path in sorted(self.folder.rglob("*")):
            relative = path.relative_to(self.folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                status = path.stat()
                identity = f"{relative.as_posix()}:{status.st_size}:{status.st_mtime_ns}"
                found.append(RepositoryFile(relative.as_posix(), status.st_size, _digest(identity.encode())))
        return tuple(found)

    @cached_property
    def sha(self) -> str:
        """The commit, or one made from the contents: the same files anywhere give the same one."""
        if self.commit:
            return self.commit
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.path}\0{file.size}\0".encode())
            with (self.folder / file.path).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()[:40]

    @cached_property
    def card(self) -> ModelCard:
        """What the front matter of README.md says."""
        return ModelCard(license=_license(self.folder / "README.md"))

    def read(self, path: str, *, limit: int, start: int = 0, length: int | None = None) -> bytes:
        """See :class:`control_plane.hub.source.ModelSource`."""
        with (self.folder / path).open("rb") as stream:
            stream.seek(start)
            content = stream.read(limit + 1 if length is None else length)
        if len(content) > limit:
            raise InvalidRepository(f"{path} is larger than {limit:,} bytes, which no honest file of its kind is.")
        return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _license(readme: Path) -> str | None:
    if not readme.is_file() or readme.stat().st_size > _CARD_LIMIT:
        return None
    before, _, rest = readme.read_text(encoding="utf-8", errors="replace").partition("---\n")
    front, end, _ = rest.partition("\n---")
    if before or not end:
        return None
    try:
        card: Any = yaml.safe_load(front)
    except yaml.YAMLError:
        return None
    value = card.get("license") if isinstance(card, dict) else None
    return value if isinstance(value, str) else None
