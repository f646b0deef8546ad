"""Instances and their replicas."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from control_plane.database import UTCDateTime
from control_plane.ids import new_id


class Desired(StrEnum):
    """What the user wants of an instance. Reconcilers move its phase towards this."""

    RUNNING = "running"
    STOPPED = "stopped"
    TERMINATED = "terminated"


class Instance(SQLModel, table=True):
    """A model that somebody wants served. ``phase`` is written by ``lifecycle.transition()`` and by nothing else."""

    __tablename__ = "instance"
    __table_args__ = (
        # A name is free again once its instance is terminated.
        Index(
            "uq_instance_team_name_live",
            "team_id",
            "name",
            unique=True,
            sqlite_where=text("terminated_at IS NULL"),
            postgresql_where=text("terminated_at IS NULL"),
        ),
        UniqueConstraint("team_id", "idempotency_key"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    team_id: UUID = Field(foreign_key="team.id", index=True)
    created_by: UUID = Field(foreign_key="user.id")
    name: str = Field(max_length=63)
    slug: str = Field(max_length=63, unique=True)

    model: str = Field(max_length=255, index=True)
    revision: str = Field(default="main", max_length=255)
    commit_sha: str | None = Field(default=None, max_length=64)
    download_id: UUID | None = Field(default=None, foreign_key="download.id", index=True)
    #: The offer it runs on, and the provider whose offer that is.
    hardware: str | None = Field(default=None, max_length=100)
    provider: str = Field(max_length=32)
    quantization: str = Field(default="auto", max_length=32)
    #: Further options of ``slipway-serve``: {"max_model_len": 4096, …}.
    engine: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    replica_count: int = 1
    #: Devices of each replica, and what the plan needs of each device (of the machine's memory without any), in bytes.
    accelerator_count: int = 0
    memory_bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    #: What a replica may use at most: {"cpus": 2.0, "memory_bytes": …}; empty means the provider's defaults.
    limits: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    #: Counts the changes that want new engines; replicas of an earlier generation are replaced one after another.
    generation: int = 0

    phase: str = Field(max_length=20, index=True)
    desired: str = Field(default=Desired.RUNNING, max_length=20)
    reason: str = Field(max_length=2000)
    next_step: str | None = Field(default=None, max_length=2000)
    since: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    #: When a reconciler looks next; NULL where nothing is pending.
    next_attempt_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime(), index=True))
    #: Attempts at the present phase without success.
    attempts: int = 0

    lease_owner: str | None = Field(default=None, max_length=100)
    lease_token: UUID | None = None
    lease_expires_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))

    price_per_hour: float = 0.0
    #: Cost of the runs that have ended; the present run is added when shown.
    cost_accrued: float = 0.0
    billing_since: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))

    #: What the client called the request that made this instance, and a digest of that request.
    idempotency_key: str | None = Field(default=None, max_length=200)
    request_digest: str | None = Field(default=None, max_length=64)

    created_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    terminated_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))


class Replica(SQLModel, table=True):
    """One engine process of an instance. The row is committed before the provider is asked to create anything."""

    __tablename__ = "replica"
    __table_args__ = (UniqueConstraint("instance_id", "ordinal"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    instance_id: UUID = Field(foreign_key="instance.id", index=True)
    ordinal: int
    provider: str = Field(max_length=32)
    #: Deterministic: what the provider knows this replica by.
    resource_name: str = Field(max_length=100, unique=True)
    #: Identity of the present boot; an address can be reused, this cannot.
    boot_token: str = Field(max_length=64)
    #: The generation of the instance that it was made for.
    generation: int = 0
    #: Gets no more requests since then: it drains, ends, and its row goes when the provider has said "absent" twice.
    retiring_since: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    #: The machine it runs on, where the provider has several.
    node: str | None = Field(default=None, max_length=255)
    url: str | None = Field(default=None, max_length=255)
    ready: bool = False
    #: What is wrong with a replica of a running instance ("not answering for 12 s"); NULL when well.
    condition: str | None = Field(default=None, max_length=500)
    #: Crashes in a row; a boot that was ready for long enough ends the row.
    restarts: int = 0
    #: Not to be started before; NULL when there is no reason to wait.
    restart_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    last_exit_code: int | None = None
    #: Times in a row that the provider said "absent"; gone only after two.
    absent_count: int = 0
    #: Seconds without a sign of life, added up look by look: neither a clock that jumps nor a pause of ours counts.
    silent_s: float = 0.0
    #: When it was last looked at.
    looked_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    created_at: datetime = Field(sa_column=Column(UTCDateTime(), nullable=False))
    #: When the provider confirmed the present boot; NULL before.
    started_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    ready_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
    #: When it last answered, or, while it starts, last wrote something new to its log.
    last_seen_at: datetime | None = Field(default=None, sa_column=Column(UTCDateTime()))
