"""What the API says of a download."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel


class FileProgress(BaseModel):
    """One file: bytes that are safely on disk, of all."""

    path: str
    bytes_done: int
    bytes_total: int
    state: str


class DownloadProgress(BaseModel):
    """Bytes, rate (per second), time left (seconds). ``stalled`` when no byte came for the configured time."""

    id: UUID
    model: str
    commit_sha: str
    state: str
    reason: str | None
    next_step: str | None
    bytes_done: int
    bytes_total: int | None
    bytes_per_s: float
    eta_s: float | None
    stalled: bool
    stalled_for_s: float | None
    files: list[FileProgress]
