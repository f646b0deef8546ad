"""Every query of the reaper's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar
from uuid import UUID

from sqlalchemy import delete, or_, update
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import Session, col, select

from control_plane.audit.tables import AuditEvent
from control_plane.downloads.tables import Download
from control_plane.instances.tables import Instance, Replica
from control_plane.providers.base import ReplicaStatus
from control_plane.reaper.match import (
    KnownDownload,
    KnownInstance,
    KnownReplica,
    Rows,
    download_named,
    replica_named,
)
from control_plane.reaper.tables import OPEN_STATES, Orphan, OrphanState, ProviderCheck

#: Values in one IN (…); SQLite's limit was 999 for long.
_CHUNK = 500

T = TypeVar("T")


def checks(session: Session) -> list[ProviderCheck]:
    """Every provider's row, by name."""
    return list(session.exec(select(ProviderCheck).order_by(col(ProviderCheck.provider))))


def check_of(session: Session, provider: str) -> ProviderCheck | None:
    """One provider's row."""
    return session.exec(select(ProviderCheck).where(ProviderCheck.provider == provider)).one_or_none()


def due_checks(session: Session, providers: Iterable[str], now: datetime, interval: timedelta) -> list[UUID]:
    """Rows of these providers that should be checked now."""
    query = select(ProviderCheck.id).where(col(ProviderCheck.provider).in_(providers), is_due(now, interval))
    return list(session.exec(query))


def is_due(now: datetime, interval: timedelta) -> ColumnElement[bool]:
    """Whether a check is due; one that lies further ahead than any is planned was planned by a clock that was wrong."""
    planned = col(ProviderCheck.next_attempt_at)
    return or_(planned <= now, planned > now + 2 * interval)


def hasten_check(session: Session, provider: str, now: datetime) -> UUID | None:
    """Let the next check of ``provider`` be due now; its row's id."""
    query = update(ProviderCheck).where(col(ProviderCheck.provider) == provider).values(next_attempt_at=now)
    return session.execute(query.returning(col(ProviderCheck.id))).scalar_one_or_none()


def rows_for(session: Session, listing: Sequence[ReplicaStatus]) -> Rows:
    """What our rows say of everything in ``listing``."""
    names = {status.name for status in listing}
    instance_ids = {named.instance_id for name in names if (named := replica_named(name))}
    download_ids = {download_id for name in names if (download_id := download_named(name))}
    instances = [
        KnownInstance(*row)
        for chunk in _chunks(instance_ids)
        for row in session.execute(
            select(  # type: ignore[call-overload]
                Instance.id,
                Instance.team_id,
                Instance.name,
                Instance.phase,
                Instance.generation,
                Instance.next_attempt_at,
            ).where(col(Instance.id).in_(chunk))
        )
    ]
    replicas = {
        name: KnownReplica(*rest)
        for chunk in _chunks(names)
        for name, *rest in session.execute(
            select(  # type: ignore[call-overload]
                Replica.resource_name, Replica.instance_id, Replica.boot_token, Replica.started_at, Replica.restarts
            ).where(col(Replica.resource_name).in_(chunk))
        )
    }
    downloads = {
        download_id: KnownDownload(*rest)
        for chunk in _chunks(download_ids)
        for download_id, *rest in session.execute(
            select(Download.id, Download.model, Download.state, Download.boot_token).where(col(Download.id).in_(chunk))
        )
    }
    let_go = _let_go(session, names - replicas.keys())
    return Rows({instance.id: instance for instance in instances}, replicas, downloads, let_go)


def _let_go(session: Session, names: Iterable[str]) -> frozenset[str]:
    """Which of ``names`` were replicas of ours whose rows were removed because they were gone: the trail tells."""
    wanted = {name: named.instance_id for name in names if (named := replica_named(name))}
    removals = (
        data.get("name")
        for chunk in _chunks(set(wanted.values()))
        for data in session.exec(
            select(AuditEvent.data).where(
                col(AuditEvent.object_id).in_(chunk), AuditEvent.action == "instance.replica_removed"
            )
        )
    )
    return frozenset(name for name in removals if name in wanted)


def started(session: Session, provider: str) -> list[tuple[str, UUID]]:
    """Names and instances of the replicas that should be on ``provider``'s list."""
    query = select(Replica.resource_name, Replica.instance_id).where(
        Replica.provider == provider, col(Replica.started_at).is_not(None)
    )
    return [(name, instance_id) for name, instance_id in session.exec(query)]


def hasten_instances(session: Session, instance_ids: Iterable[UUID], now: datetime) -> list[UUID]:
    """Let a reconciler look at these instances now; those that one has something to do for."""
    hastened: list[UUID] = []
    for chunk in _chunks(instance_ids):
        query = (
            update(Instance)
            .where(col(Instance.id).in_(chunk), col(Instance.next_attempt_at) > now)
            .values(next_attempt_at=now)
            .returning(col(Instance.id))
        )
        hastened += session.execute(query, execution_options={"synchronize_session": False}).scalars()
    return hastened


def orphan(session: Session, orphan_id: UUID) -> Orphan | None:
    """One orphan, locked until the end of the transaction."""
    return session.exec(select(Orphan).where(Orphan.id == orphan_id).with_for_update()).one_or_none()


def orphans_of(session: Session, provider: str, names: Iterable[str]) -> dict[str, Orphan]:
    """The open orphans of ``provider``, and any of these names; by name, locked until the end of the transaction."""
    of_provider = select(Orphan).where(Orphan.provider == provider).with_for_update()
    found = {row.name: row for row in session.exec(of_provider.where(col(Orphan.state).in_(OPEN_STATES)))}
    for chunk in _chunks(set(names) - found.keys()):
        found |= {row.name: row for row in session.exec(of_provider.where(col(Orphan.name).in_(chunk)))}
    return found


def open_orphans(session: Session) -> list[Orphan]:
    """Everything unmatched, the newest first."""
    query = select(Orphan).where(col(Orphan.state).in_(OPEN_STATES)).order_by(col(Orphan.first_seen_at).desc())
    return list(session.exec(query))


def forget_orphans(session: Session, before: datetime) -> None:
    """Remove what has been gone, or adopted, since ``before``."""
    closed = col(Orphan.state).in_([OrphanState.GONE, OrphanState.ADOPTED])
    session.execute(delete(Orphan).where(closed, col(Orphan.last_seen_at) < before))


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
