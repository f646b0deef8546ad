"""``/audit``: what happened in the team, for administrators."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from control_plane.audit.endpoints import list_events
from control_plane.errors import Forbidden
from web.templating import page
from web.visitor import VisitorDep

router = APIRouter(include_in_schema=False)

PAGE_SIZE = 100


@router.get("/audit")
def audit(request: Request, visitor: VisitorDep, cursor: UUID | None = None) -> Response:
    """The events, newest first."""
    if not visitor.principal.is_admin:
        raise Forbidden("The audit trail is for administrators.")
    events = list_events(visitor.context, visitor.principal, cursor, PAGE_SIZE)
    return page(request, "pages/audit.html", visitor=visitor, events=events)
