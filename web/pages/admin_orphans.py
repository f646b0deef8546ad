"""``/admin/orphans``: each provider's list against our rows, and what to do about what no row wants."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from control_plane.errors import NotFound, SlipwayError
from control_plane.instances import brake
from control_plane.reaper import adoption, decisions, views
from control_plane.reaper.schemas import OrphanView
from web import live
from web.templating import fragment, page
from web.visitor import AdminVisitorDep, Visitor

router = APIRouter(prefix="/admin", include_in_schema=False)

_HERE = "/admin/orphans"


def _values(visitor: Visitor) -> dict[str, Any]:
    found = views.orphans(visitor.context)
    return {
        "visitor": visitor,
        "orphans": found.items,
        "providers": found.providers,
        "interval_s": visitor.context.settings.reap_interval_s,
    }


def _orphan(visitor: Visitor, orphan_id: UUID) -> OrphanView:
    for orphan in views.orphans(visitor.context).items:
        if orphan.id == orphan_id:
            return orphan
    raise NotFound("This is not on the list any more.", "Look at the list again.")


@router.get("/orphans")
def orphans(request: Request, visitor: AdminVisitorDep) -> Response:
    """The list."""
    return page(request, "pages/admin_orphans.html", error=None, **_values(visitor))


@router.get("/orphans/live")
def orphans_live(request: Request, visitor: AdminVisitorDep) -> Response:
    """The list, sent again whenever it changes."""

    def parts() -> dict[str, str]:
        return {"orphans": fragment("admin/orphans.html", now=visitor.context.clock.now(), **_values(visitor))}

    return live.stream(request, visitor.context, parts)


@router.post("/orphans/{orphan_id}/adopt")
def adopt(request: Request, visitor: AdminVisitorDep, orphan_id: UUID) -> Response:
    """Make an instance of it, and go to the instances."""
    try:
        adoption.adopt(visitor.context, visitor.principal, orphan_id)
    except SlipwayError as error:
        return page(request, "pages/admin_orphans.html", status=error.status, error=error, **_values(visitor))
    return RedirectResponse("/instances", 303)


@router.get("/orphans/{orphan_id}/delete")
def confirm_deletion(request: Request, visitor: AdminVisitorDep, orphan_id: UUID) -> Response:
    """What would be lost."""
    return page(request, "pages/admin_delete.html", visitor=visitor, orphan=_orphan(visitor, orphan_id))


@router.post("/orphans/{orphan_id}/delete")
def delete(visitor: AdminVisitorDep, orphan_id: UUID) -> Response:
    """Have it deleted."""
    decisions.delete(visitor.context, visitor.principal, orphan_id)
    return RedirectResponse(_HERE, 303)


@router.get("/providers/{provider}/confirm-loss")
def confirm_confirmation(request: Request, visitor: AdminVisitorDep, provider: str) -> Response:
    """What follows from saying that what looks gone is gone."""
    for view in views.orphans(visitor.context).providers:
        if view.name == provider and view.brake:
            return page(request, "pages/admin_loss.html", visitor=visitor, provider=view)
    raise NotFound("Nothing is held back at this provider.", "Look at the list again.")


@router.post("/providers/{provider}/confirm-loss")
def confirm_loss(visitor: AdminVisitorDep, provider: str) -> Response:
    """Say so."""
    brake.confirm_loss(visitor.context, visitor.principal, provider)
    return RedirectResponse(_HERE, 303)
