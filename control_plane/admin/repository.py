"""Queries over all teams: nothing but the administrators' routes may use them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlmodel import Session, col, select

from control_plane.accounts.tables import Team
from control_plane.downloads.tables import Download
from control_plane.instances.tables import Instance


def instances(
    session: Session, *, phase: str | None, provider: str | None, before: UUID | None, limit: int
) -> list[Instance]:
    """Every team's instances, newest first; those of ``phase`` and ``provider`` where given."""
    query = select(Instance).order_by(col(Instance.id).desc()).limit(limit)
    if phase is not None:
        query = query.where(Instance.phase == phase)
    if provider is not None:
        query = query.where(Instance.provider == provider)
    if before is not None:
        query = query.where(col(Instance.id) < before)
    return list(session.exec(query))


def team_names(session: Session, team_ids: Iterable[UUID]) -> dict[UUID, str]:
    """Names of teams by id."""
    query = select(Team.id, Team.name).where(col(Team.id).in_(set(team_ids)))
    return dict(session.exec(query).all())


def downloads(session: Session, *, before: UUID | None, limit: int) -> list[Download]:
    """Every download, newest first."""
    query = select(Download).order_by(col(Download.id).desc()).limit(limit)
    if before is not None:
        query = query.where(col(Download.id) < before)
    return list(session.exec(query))
