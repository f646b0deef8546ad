"""Whether a row wants what a provider has. Pure: rows and listing in, a verdict with its reason out.

::

    listing ──► rows          in this order: a row is committed before its resource is created, so whatever is listed
                              had its row by the time that the rows are read; a boot that they do not name is over
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from control_plane.downloads.tables import FINAL_STATES, DownloadState
from control_plane.instances.lifecycle import SERVING_PHASES, Phase
from control_plane.instances.replicas import MAX_RESTARTS
from control_plane.providers.base import ReplicaStatus

_REPLICA_NAME = re.compile(r"slipway-([0-9a-f]{32})-(\d{1,4})")
_AGENT_NAME = re.compile(r"slipway-fetch-([0-9a-f]{32})")

#: Phases in which a reconciler gives back what the rows name.
_RELEASING = frozenset({Phase.STOPPING, Phase.TERMINATING, Phase.FAILED})


class ReplicaName(NamedTuple):
    """What a resource's name says: which replica of which instance."""

    instance_id: UUID
    ordinal: int


def replica_named(name: str) -> ReplicaName | None:
    """The inverse of ``replicas.resource_name``; None for what is no replica."""
    match = _REPLICA_NAME.fullmatch(name)
    return ReplicaName(UUID(hex=match[1]), int(match[2])) if match else None


def download_named(name: str) -> UUID | None:
    """The download that an agent of this name works for; None for what is no agent."""
    match = _AGENT_NAME.fullmatch(name)
    return UUID(hex=match[1]) if match else None


class Verdict(StrEnum):
    """What a resource is to us."""

    MATCHED = "matched"
    LEFTOVER = "leftover"
    UNKNOWN = "unknown"


class Judgement(NamedTuple):
    """A verdict, and why; the reason is empty for what is wanted."""

    verdict: Verdict
    reason: str = ""


class KnownInstance(NamedTuple):
    """What matters here of an instance's row."""

    id: UUID
    team_id: UUID
    name: str
    phase: str
    generation: int
    next_attempt_at: datetime | None


class KnownReplica(NamedTuple):
    """What matters here of a replica's row."""

    instance_id: UUID
    boot_token: str
    started_at: datetime | None
    restarts: int


class KnownDownload(NamedTuple):
    """What matters here of a download's row."""

    model: str
    state: str
    boot_token: str | None


@dataclass(frozen=True)
class Rows:
    """Our side: instances and downloads by id, replicas by resource name, and the names that were let go for good."""

    instances: dict[UUID, KnownInstance]
    replicas: dict[str, KnownReplica]
    downloads: dict[UUID, KnownDownload]
    let_go: frozenset[str] = frozenset()

    def instance_of(self, name: str) -> KnownInstance | None:
        """The instance that a resource of this name belongs to."""
        named = replica_named(name)
        return self.instances.get(named.instance_id) if named else None


def judge(status: ReplicaStatus, rows: Rows) -> Judgement:
    """What ``status`` is to us."""
    if (download_id := download_named(status.name)) is not None:
        return _judge_agent(status, rows.downloads.get(download_id))
    instance = rows.instance_of(status.name)
    if instance is None:
        return Judgement(Verdict.UNKNOWN, "no row knows its instance; was an older database restored?")
    if instance.phase not in set(Phase):
        return Judgement(Verdict.MATCHED)  # a newer version knows what its phase means
    replica = rows.replicas.get(status.name)
    if replica is None:
        return _judge_rowless(status, instance, let_go=status.name in rows.let_go)
    return _judge_replica(status, instance, replica)


def _judge_replica(status: ReplicaStatus, instance: KnownInstance, replica: KnownReplica) -> Judgement:
    failed_for_good = instance.phase == Phase.FAILED and instance.next_attempt_at is None
    if failed_for_good or instance.phase in {Phase.STOPPED, Phase.TERMINATED}:
        return Judgement(Verdict.LEFTOVER, f"instance {instance.name} is {instance.phase}")
    if status.boot_token == replica.boot_token or instance.phase in _RELEASING:
        return Judgement(Verdict.MATCHED)
    if replica.started_at is None and replica.restarts <= MAX_RESTARTS and instance.phase in SERVING_PHASES:
        return Judgement(Verdict.MATCHED)  # the reconciler is about to start it, and ends an earlier boot before
    return Judgement(Verdict.LEFTOVER, f"an earlier boot of instance {instance.name}, which has a newer one")


def _judge_rowless(status: ReplicaStatus, instance: KnownInstance, *, let_go: bool) -> Judgement:
    """A replica whose instance is known and which itself is not: surely over, or newer than the database?"""
    if instance.phase in {Phase.STOPPING, Phase.STOPPED, Phase.FAILED, Phase.TERMINATING, Phase.TERMINATED}:
        return Judgement(Verdict.LEFTOVER, f"instance {instance.name} is {instance.phase}")
    if let_go:
        return Judgement(Verdict.LEFTOVER, f"instance {instance.name} let this replica go")
    generation = status.labels.get("generation", "")
    if generation.isdigit() and int(generation) < instance.generation:
        return Judgement(Verdict.LEFTOVER, f"of generation {generation} of instance {instance.name}, which is replaced")
    return Judgement(Verdict.UNKNOWN, f"instance {instance.name} has no such replica; was an older database restored?")


def _judge_agent(status: ReplicaStatus, download: KnownDownload | None) -> Judgement:
    if download is None:
        return Judgement(Verdict.UNKNOWN, "no row knows its download; was an older database restored?")
    if download.state in FINAL_STATES:
        ended = "is done" if download.state == DownloadState.DONE else f"was {download.state}"
        return Judgement(Verdict.LEFTOVER, f"the download of {download.model} {ended}")
    if status.boot_token != download.boot_token:
        return Judgement(Verdict.LEFTOVER, f"an earlier agent for {download.model}, which has a newer one")
    return Judgement(Verdict.MATCHED)
