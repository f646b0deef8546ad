"""REST of the audit trail: read only, and for administrators."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from control_plane.accounts.dependencies import AdminDep
from control_plane.audit import repository
from control_plane.audit.schemas import AuditEventView
from control_plane.context import ContextDep
from control_plane.pagination import Page, page_of

router = APIRouter(tags=["audit"])


@router.get("/audit")
def list_events(
    context: ContextDep,
    principal: AdminDep,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Page[AuditEventView]:
    """What happened in the team, newest first."""
    with context.database.reading() as session:
        rows = repository.of_team(session, principal.team_id, before=cursor, limit=limit + 1)
    return page_of([AuditEventView.model_validate(row) for row in rows], limit)
