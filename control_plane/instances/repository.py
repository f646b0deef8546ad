"""Every query about instances and their replicas."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import or_, update
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import Session, col, select

from control_plane.downloads.tables import Download
from control_plane.instances.lifecycle import Phase
from control_plane.instances.replicas import ReplicaValues
from control_plane.instances.tables import Instance, Replica


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


def load(session: Session, instance_id: UUID) -> Loaded:
    """An instance that is known to exist, with its replicas and its download, as they are now."""
    instance = fresh(session, instance_id)
    download = session.get(Download, instance.download_id) if instance.download_id else None
    return Loaded(instance, replicas(session, [instance_id]), download)


def fresh(session: Session, instance_id: UUID) -> Instance:
    """An instance that is known to exist, read anew."""
    query = select(Instance).where(Instance.id == instance_id).execution_options(populate_existing=True)
    return session.exec(query).one()


def update_replica(session: Session, replica_id: UUID, values: ReplicaValues) -> None:
    """Write columns of a replica."""
    if values:
        session.execute(update(Replica).where(col(Replica.id) == replica_id).values(**values))


def is_due(session: Session, instance_id: UUID, now: datetime) -> bool:
    """Whether a reconciler has something to do for it."""
    query = select(Instance.id).where(Instance.id == instance_id, col(Instance.next_attempt_at) <= now)
    return session.exec(query).first() is not None


def due(session: Session, now: datetime, limit: int) -> list[UUID]:
    """Instances that want to be looked at and that nobody looks at; the longest waiting first."""
    free = or_(col(Instance.lease_token).is_(None), col(Instance.lease_expires_at) < now)
    query = select(Instance.id).where(col(Instance.next_attempt_at) <= now, free)
    return list(session.exec(query.order_by(col(Instance.next_attempt_at)).limit(limit)))


def _is_live() -> ColumnElement[bool]:
    return col(Instance.terminated_at).is_(None)
