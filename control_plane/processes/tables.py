"""The control plane's own processes: each writes that it lives."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Column
from sqlmodel import Field, SQLModel

from control_plane.database import UTCDateTime
from control_plane.ids import new_id


class ProcessKind(StrEnum):
    """What a process is for."""

    WEB = "web"
    GATEWAY = "gateway"
    WORKER = "worker"
    SCHEDULER = "scheduler"


class ProcessHeartbeat(SQLModel, table=True):
    """One process and its last sign of life; gone when it ends in order, left behind when it is killed."""

    __tablename__ = "process_heartbeat"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    #: ``worker@host:pid``
    name: str = Field(max_length=255, unique=True)
    kind: str = Field(max_length=20)
    host: str = Field(max_length=255)
    pid: int
    version: str = Field(max_length=40)
    started_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    seen_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False, index=True))
    #: When a worker last began a task: one that lives and takes none has lost its broker.
    last_task_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
