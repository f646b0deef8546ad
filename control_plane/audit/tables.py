"""What happened, who did it, to what: written in the transaction that did it, never changed afterwards."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from control_plane.database import UTCDateTime
from control_plane.ids import new_id


class AuditEvent(SQLModel, table=True):
    """One event. ``actor`` is ``user:<id>``, ``key:<id>`` or ``system:<part>``; ``data`` never holds a secret."""

    __tablename__ = "audit_event"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False, index=True))
    team_id: UUID | None = Field(default=None, foreign_key="team.id", index=True)
    actor: str = Field(max_length=64)
    action: str = Field(max_length=64)
    object_type: str = Field(max_length=32)
    object_id: UUID | None = Field(default=None, index=True)
    message: str = Field(max_length=2000)
    data: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
