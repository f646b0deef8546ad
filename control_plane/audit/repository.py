"""Every query on audit events."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlmodel import Session, col, select

from control_plane.audit.tables import AuditEvent
from control_plane.clock import Clock


def record(
    session: Session,
    clock: Clock,
    *,
    team_id: UUID | None,
    actor: str,
    action: str,
    object_type: str,
    object_id: UUID | None,
    message: str,
    **data: Any,
) -> AuditEvent:
    """Add an event to the transaction that does what the event tells."""
    event = AuditEvent(
        at=clock.now(),
        team_id=team_id,
        actor=actor,
        action=action,
        object_type=object_type,
        object_id=object_id,
        message=message,
        data=data,
    )
    session.add(event)
    return event


def of_object(session: Session, object_id: UUID, *, after: UUID | None = None, limit: int = 200) -> list[AuditEvent]:
    """The events of one object, oldest first; ids are time-ordered, so ``after`` continues a listing."""
    query = select(AuditEvent).where(AuditEvent.object_id == object_id).order_by(col(AuditEvent.id)).limit(limit)
    if after is not None:
        query = query.where(col(AuditEvent.id) > after)
    return list(session.exec(query))


def of_team(session: Session, team_id: UUID, *, before: UUID | None = None, limit: int = 50) -> list[AuditEvent]:
    """The events of one team, newest first; ``before`` continues a listing."""
    query = select(AuditEvent).where(AuditEvent.team_id == team_id).order_by(col(AuditEvent.id).desc()).limit(limit)
    if before is not None:
        query = query.where(col(AuditEvent.id) < before)
    return list(session.exec(query))
