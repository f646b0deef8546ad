"""What the agent and the control plane tell each other, as the agent sees it.

The control plane's side of the same JSON is ``control_plane/downloads/agent_schemas.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from control_plane.downloads.remote import Repository
from control_plane.hub.ids import is_commit_sha, is_safe_path
from control_plane.hub.source import RepositoryFile


class MalformedAnswer(ValueError):
    """The control plane said something that the agent does not understand."""


@dataclass(frozen=True)
class Job:
    """What to fetch. ``offline``: use what the cache over there holds, ask no hub."""

    repository: Repository
    files: tuple[RepositoryFile, ...]
    offline: bool = False
    #: Branches and tags that stand for the commit.
    revisions: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Any) -> Job:
        """Read a job.

        :raises MalformedAnswer: it is not one, or names a file outside its folder.
        """
        try:
            repository = Repository(
                str(value["endpoint"]), str(value["model"]), str(value["commit_sha"]), value.get("hub_token")
            )
            files = tuple(_file(entry) for entry in value["files"])
            revisions = tuple(str(revision) for revision in value.get("revisions", ()))
            offline = bool(value.get("offline", False))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise MalformedAnswer(f"the job is not understood ({type(error).__name__}: {error})") from None
        if not is_commit_sha(repository.commit_sha) or not all(is_safe_path(file.path) for file in files):
            raise MalformedAnswer("the job names a commit or a path that is none")
        return cls(repository, files, offline, revisions)


def _file(entry: dict[str, Any]) -> RepositoryFile:
    sha256 = entry.get("sha256")
    return RepositoryFile(str(entry["path"]), int(entry["size"]), str(entry["etag"]), str(sha256) if sha256 else None)


@dataclass(frozen=True)
class End:
    """How it ended: ``path`` is the snapshot's folder when all is there; else ``reason`` and ``next_step`` tell.

    :ivar transient: whether the same attempt may succeed later; after ``retry_after_s`` seconds if the hub said so.
    """

    path: str | None = None
    reason: str | None = None
    next_step: str | None = None
    transient: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Report:
    """Progress: bytes of each file that changed since the last report that arrived, and of all together."""

    bytes_done: int
    bytes_per_s: float
    verifying: bool
    trouble: str | None = None
    #: Bytes on disk and state by path.
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    end: End | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is sent."""
        return {
            "bytes_done": self.bytes_done,
            "bytes_per_s": self.bytes_per_s,
            "verifying": self.verifying,
            "trouble": self.trouble,
            "files": {path: {"bytes_done": done, "state": state} for path, (done, state) in self.files.items()},
            "end": None if self.end is None else vars(self.end),
        }
