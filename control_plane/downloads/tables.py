"""Weights on their way to storage: one row per repository and commit, shared by every instance that wants it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Column, UniqueConstraint
from sqlmodel import Field, SQLModel

from control_plane.database import UTCDateTime
from control_plane.downloads.states import FINAL_STATES, DownloadState
from control_plane.ids import new_id

__all__ = ["FINAL_STATES", "Download", "DownloadFile", "DownloadState"]


class Download(SQLModel, table=True):
    """One repository at one commit. Progress is written by the worker that holds the lease and by nobody else."""

    __tablename__ = "download"
    __table_args__ = (UniqueConstraint("endpoint", "model", "commit_sha", "location"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    endpoint: str = Field(max_length=255)
    model: str = Field(max_length=255)
    commit_sha: str = Field(max_length=64)
    #: The storage it goes to: empty for this control plane's own, else one that an agent of the provider's fills.
    location: str = Field(default="", max_length=255)
    #: Where that agent runs, and which boot of it may report.
    provider: str | None = Field(default=None, max_length=32)
    hardware: str | None = Field(default=None, max_length=100)
    boot_token: str | None = Field(default=None, max_length=64)
    #: The folder that ``slipway-serve`` is given: the snapshot in the Hugging Face cache. Set when done.
    path: str | None = Field(default=None, max_length=4096)
    #: Whether the model says itself how a conversation becomes a prompt; NULL: not noted, ask the files.
    has_chat_template: bool | None = None

    state: str = Field(default=DownloadState.QUEUED, max_length=20, index=True)
    reason: str | None = Field(default=None, max_length=2000)
    next_step: str | None = Field(default=None, max_length=2000)
    cancel_requested: bool = False

    bytes_done: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    bytes_total: int | None = Field(default=None, sa_column=Column(BigInteger))
    bytes_per_s: float = 0.0
    #: When a byte last arrived; the download is stalled when this is long ago.
    progress_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))

    attempts: int = 0
    next_attempt_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime(), index=True))
    lease_owner: str | None = Field(default=None, max_length=100)
    lease_token: UUID | None = None
    lease_expires_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))

    created_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    #: When somebody last asked for it while it was not under way.
    queued_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    #: When a worker took it up for the first time after that.
    started_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    finished_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))


class DownloadFile(SQLModel, table=True):
    """One file of a download. ``sha256`` is known beforehand for large files only; small ones carry a git blob id."""

    __tablename__ = "download_file"
    __table_args__ = (UniqueConstraint("download_id", "path"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    download_id: UUID = Field(foreign_key="download.id", index=True)
    path: str = Field(max_length=1024)
    etag: str = Field(max_length=128)
    sha256: str | None = Field(default=None, max_length=64)
    bytes_total: int = Field(sa_column=Column(BigInteger, nullable=False))
    bytes_done: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    state: str = Field(default=DownloadState.QUEUED, max_length=20)
