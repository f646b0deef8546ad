"""Every query about instances and their replicas."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import delete, or_, update
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import Session, col, select

from control_plane.downloads.tables import Download
from control_plane.instances.lifecycle import SERVING_PHASES, Phase
from control_plane.instances.replicas import ReplicaValues
from control_plane.instances.tables import Instance, Replica
from control_plane.leases import OWNER, is_free
from control_plane.reaper.tables import ProviderCheck

#: No reconciler ever waits longer. What is due later than that was written before the clock was set back.
HORIZON = timedelta(minutes=2)


class Loaded(NamedTuple):
    """An instance and what belongs to it."""

    instance: Instance
    replicas: list[Replica]
    download: Download | None


def find(session: Session, team_id: UUID, instance_id: UUID) -> Instance | None:
    """An instance of this team; another team's does not exist."""
    return session.exec(select(Instance).where(Instance.id == instance_id, Instance.team_id == team_id)).one_or_none()


def find_for_update(session: Session, team_id: UUID, instance_id: UUID) -> Instance | None:
    """:func:`find`, and nobody else changes it before this transaction ends."""
    query = select(Instance).where(Instance.id == instance_id, Instance.team_id == team_id).with_for_update()
    return session.exec(query).one_or_none()


def find_by_slug(session: Session, team_id: UUID, slug: str) -> Instance | None:
    """The team's instance with this slug, if it is not terminated."""
    query = select(Instance).where(Instance.slug == slug, Instance.team_id == team_id, _is_live())
    return session.exec(query).one_or_none()


def find_by_name(session: Session, team_id: UUID, name: str) -> Instance | None:
    """The team's instance with this name, if it is not terminated."""
    query = select(Instance).where(Instance.name == name, Instance.team_id == team_id, _is_live())
    return session.exec(query).one_or_none()


def find_by_idempotency_key(session: Session, team_id: UUID, key: str) -> Instance | None:
    """What an earlier request with the same key made."""
    query = select(Instance).where(Instance.team_id == team_id, Instance.idempotency_key == key)
    return session.exec(query).one_or_none()


def of_team(
    session: Session,
    team_id: UUID,
    *,
    before: UUID | None = None,
    limit: int = 50,
    live: bool = False,
) -> list[Instance]:
    """A team's instances, newest first; ``before`` continues a listing, ``live`` leaves out terminated ones."""
    query = select(Instance).where(Instance.team_id == team_id).order_by(col(Instance.id).desc()).limit(limit)
    if before is not None:
        query = query.where(col(Instance.id) < before)
    if live:
        query = query.where(_is_live())
    return list(session.exec(query))


def live_by_any_name(session: Session, team_id: UUID, name: str) -> list[Instance]:
    """The team's live instances that a request may mean by ``name``: slug, name or model; newest first."""
    named = or_(col(Instance.slug) == name, col(Instance.name) == name, col(Instance.model) == name)
    query = select(Instance).where(Instance.team_id == team_id, _is_live(), named).order_by(col(Instance.id).desc())
    return list(session.exec(query))


def running(session: Session, team_id: UUID) -> list[Instance]:
    """The team's running instances, oldest first."""
    query = select(Instance).where(Instance.team_id == team_id, Instance.phase == Phase.RUNNING)
    return list(session.exec(query.order_by(col(Instance.id))))


def replicas(session: Session, instance_ids: Sequence[UUID]) -> list[Replica]:
    """The replicas of these instances, by ordinal."""
    query = select(Replica).where(col(Replica.instance_id).in_(instance_ids)).order_by(col(Replica.ordinal))
    return list(session.exec(query))


def claim(session: Session, instance_id: UUID, *, now: datetime, lease: timedelta) -> Loaded | None:
    """Claim an instance that is due and nobody's, and read it with what belongs to it; None if it is not.

    One statement claims and reads: a worker that comes second costs one query.
    """
    statement = (
        update(Instance)
        .where(col(Instance.id) == instance_id, _is_due(now), is_free(Instance, now, lease))
        .values(lease_owner=OWNER, lease_token=uuid4(), lease_expires_at=now + lease)
        .returning(Instance)
    )
    instance = session.scalars(statement, execution_options={"synchronize_session": False}).one_or_none()
    if instance is None:
        return None
    download = session.get(Download, instance.download_id) if instance.download_id else None
    return Loaded(instance, replicas(session, [instance_id]), download)


def release(session: Session, instance_id: UUID, token: UUID) -> Instance | None:
    """Give a claim back and read the instance as it is now; None when the claim was lost."""
    statement = (
        update(Instance)
        .where(col(Instance.id) == instance_id, col(Instance.lease_token) == token)
        .values(lease_owner=None, lease_token=None, lease_expires_at=None)
        .returning(Instance)
    )
    options = {"synchronize_session": False, "populate_existing": True}
    return session.scalars(statement, execution_options=options).one_or_none()


def fresh(session: Session, instance_id: UUID) -> Instance:
    """An instance that is known to exist, read anew."""
    query = select(Instance).where(Instance.id == instance_id).execution_options(populate_existing=True)
    return session.exec(query).one()


def update_replica(session: Session, replica_id: UUID, values: ReplicaValues, *, boot_token: str | None = None) -> None:
    """Write columns of a replica; with ``boot_token`` only while that is its present boot."""
    if not values:
        return
    statement = update(Replica).where(col(Replica.id) == replica_id).values(**values)
    if boot_token is not None:
        statement = statement.where(col(Replica.boot_token) == boot_token)
    session.execute(statement, execution_options={"synchronize_session": False})


def delete_replicas(session: Session, replica_ids: Sequence[UUID]) -> None:
    """Forget replicas that are surely gone."""
    if replica_ids:
        session.execute(delete(Replica).where(col(Replica.id).in_(replica_ids)))


def due(session: Session, now: datetime, lease: timedelta, limit: int | None = None) -> list[UUID]:
    """Instances that want to be looked at and that nobody looks at; the longest waiting first."""
    query = select(Instance.id).where(_is_due(now), is_free(Instance, now, lease))
    return list(session.exec(query.order_by(col(Instance.next_attempt_at)).limit(limit)))


def wake(session: Session, instance_id: UUID, now: datetime) -> bool:
    """Have a serving instance looked at now; False when it is not serving, or is about to be looked at anyway."""
    statement = (
        update(Instance)
        .where(
            col(Instance.id) == instance_id,
            col(Instance.phase).in_(SERVING_PHASES),
            col(Instance.next_attempt_at) > now,
        )
        .values(next_attempt_at=now)
        .returning(col(Instance.id))
    )
    return session.scalars(statement, execution_options={"synchronize_session": False}).one_or_none() is not None


def started_replicas(session: Session, provider: str) -> list[Replica]:
    """The replicas that ought to run at a provider: started, and neither they nor their instances on the way out."""
    query = (
        select(Replica)
        .join(Instance, col(Instance.id) == Replica.instance_id)
        .where(
            Replica.provider == provider,
            col(Replica.started_at).is_not(None),
            col(Replica.retiring_since).is_(None),
            col(Instance.phase).in_(SERVING_PHASES),
        )
    )
    return list(session.exec(query))


def serving_on(session: Session, provider: str) -> list[UUID]:
    """The instances that ought to run at a provider."""
    query = select(Instance.id).where(Instance.provider == provider, col(Instance.phase).in_(SERVING_PHASES))
    return list(session.exec(query))


def provider_check(session: Session, provider: str) -> ProviderCheck | None:
    """What is noted about a provider."""
    return session.exec(select(ProviderCheck).where(ProviderCheck.provider == provider)).one_or_none()


def _is_due(now: datetime) -> ColumnElement[bool]:
    at = col(Instance.next_attempt_at)
    return or_(at <= now, at > now + HORIZON)


def _is_live() -> ColumnElement[bool]:
    return col(Instance.terminated_at).is_(None)
