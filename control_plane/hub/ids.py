"""Model ids and revisions: value types that exist only when well-formed.

The strict pattern is what makes it safe to put them into URLs and folder names: no way up, no scheme, no escapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from control_plane.hub.errors import InvalidModelId, InvalidRevision

#: Letters, digits, "-", "_" and "."; begins and ends with a letter, digit or "_"; 96 characters at most.
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,198}", re.ASCII)
_SHA = re.compile(r"[0-9a-f]{40}", re.ASCII)

#: Models that come with Slipway itself live in this namespace and never reach the hub.
LOCAL_NAMESPACE = "slipway"
MAIN = "main"


@dataclass(frozen=True)
class ModelId:
    """``organisation/name``, or one of the hub's oldest models that have a name only (``gpt2``)."""

    name: str
    organisation: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelId:
        """Read an id as a person types it.

        :raises InvalidModelId: anything that the hub would not accept as a repository name.
        """
        parts = text.strip().split("/")
        if len(parts) > 2:
            raise InvalidModelId(f"{_shown(text)} is not a model id: it has more than one slash.")
        for part in parts:
            if not _PART.fullmatch(part) or "--" in part or ".." in part or part.endswith((".git", ".ipynb")):
                raise InvalidModelId(
                    f"{_shown(text)} is not a model id: names are made of letters, digits, '-', '_' and '.', begin and "
                    "end with a letter or digit, and have no '--' or '..' in them."
                )
        return cls(parts[-1], parts[0] if len(parts) == 2 else None)

    @property
    def is_local(self) -> bool:
        """Whether the model comes with Slipway."""
        return self.organisation == LOCAL_NAMESPACE

    def __str__(self) -> str:
        return f"{self.organisation}/{self.name}" if self.organisation else self.name


def parse_revision(text: str) -> str:
    """A branch, tag, ``refs/…`` or commit SHA, as git permits them.

    :raises InvalidRevision: anything else.
    """
    revision = text.strip()
    if (
        not _REVISION.fullmatch(revision)
        or ".." in revision
        or "//" in revision
        or any(part.startswith(".") or part.endswith((".", ".lock")) or not part for part in revision.split("/"))
    ):
        raise InvalidRevision(f"{_shown(text)} is not the name of a branch, tag or commit.")
    return revision


def is_commit_sha(revision: str) -> bool:
    """Whether ``revision`` is pinned already."""
    return _SHA.fullmatch(revision) is not None


def is_safe_path(path: str) -> bool:
    """Whether a file name from a repository stays inside the folder it is put into, on every system."""
    parts = path.split("/")
    return (
        0 < len(path) <= 1024
        and path.isprintable()
        and not any(character in path for character in '\\:*?"<>|')
        and all(part not in {"", ".", ".."} for part in parts)
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")
