"""What the reaper remembers: when it last read each provider's list, and what it found there that no row wants."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import JSON, Column, UniqueConstraint
from sqlmodel import Field, SQLModel

from control_plane.database import UTCDateTime
from control_plane.ids import new_id


class ProviderCheck(SQLModel, table=True):
    """One provider's list against our rows: one row per provider, claimed by whichever worker checks it."""

    __tablename__ = "provider_check"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    provider: str = Field(max_length=32, unique=True)
    #: When it was last asked with success; NULL before the first time.
    last_listed_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    #: Why it could not be asked the last time, and since when that is so; NULL while it answers.
    last_error: str | None = Field(default=None, max_length=2000)
    error_since: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    #: What it listed as ours; how much of that a row wants; and how much none does.
    owned: int = 0
    matched: int = 0
    unmatched: int = 0
    #: Since when nothing is deleted here automatically, because too much looks gone at once; NULL while all is well.
    brake_since: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    #: What looked gone at the last check, for a person; NULL while all is well.
    brake_reason: str | None = Field(default=None, max_length=500)
    #: When an administrator said that what looks gone is gone.
    loss_confirmed_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))

    next_attempt_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    lease_owner: str | None = Field(default=None, max_length=100)
    lease_token: UUID | None = None
    lease_expires_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))


class OrphanState(StrEnum):
    """Where something stands that a provider has of ours and no row wants.

    ::

        seen ─┬─► leftover (its row says that it is over) ─── seen again 20 s later ─┐
              │                                                                      ▼
              └─► unknown (no row at all) ─► an administrator ─┬─► delete ───────► deleting ─► gone
                                                               └─► adopt ─► adopted     (absent twice)

    What disappears by itself, or is wanted by a row again, is gone as well. A name that comes back begins anew.
    """

    LEFTOVER = "leftover"
    UNKNOWN = "unknown"
    DELETING = "deleting"
    ADOPTED = "adopted"
    GONE = "gone"


#: States in which an orphan counts as unmatched.
OPEN_STATES = frozenset({OrphanState.LEFTOVER, OrphanState.UNKNOWN, OrphanState.DELETING})


class Orphan(SQLModel, table=True):
    """One resource of ours that no row wants, by its name at its provider."""

    __tablename__ = "orphan"
    __table_args__ = (UniqueConstraint("provider", "name"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    provider: str = Field(max_length=32)
    name: str = Field(max_length=255)
    boot_token: str | None = Field(default=None, max_length=64)
    labels: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    node: str | None = Field(default=None, max_length=255)
    state: str = Field(max_length=20, index=True)
    #: Why no row wants it, for a person.
    reason: str = Field(max_length=2000)
    first_seen_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    last_seen_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    #: What is done with it ("delete", "adopt"), by whom (an audit actor), and since when.
    decision: str | None = Field(default=None, max_length=20)
    decided_by: str | None = Field(default=None, max_length=64)
    decided_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    #: Why the last attempt to delete it failed; NULL when it did not.
    trouble: str | None = Field(default=None, max_length=2000)
    #: Times in a row that it was not listed.
    absent_count: int = 0
    gone_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
