"""``/instances/{id}``: one instance, a tab for each thing that people want of it."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from control_plane.instances import service
from web import live
from web.instance_view import TABS, head, overview, tab_values
from web.templating import fragment, page
from web.visitor import VisitorDep

router = APIRouter(include_in_schema=False)


@router.get("/instances/{instance_id}")
def instance(request: Request, visitor: VisitorDep, instance_id: UUID, tab: str = TABS[0]) -> Response:
    """The page, on one of its tabs."""
    shown = tab if tab in TABS else TABS[0]
    view = service.get(visitor.context, visitor.principal, instance_id)
    values = {**head(visitor, view, shown), **tab_values(visitor, view, shown)}
    return page(request, "pages/instance.html", **values)


@router.get("/instances/{instance_id}/live")
def instance_live(request: Request, visitor: VisitorDep, instance_id: UUID, tab: str = TABS[0]) -> Response:
    """State and reason on every tab, the timeline with its bars on the first: sent again whenever they change."""

    def parts() -> dict[str, str]:
        view = service.get(visitor.context, visitor.principal, instance_id)
        values = {**head(visitor, view, tab), "now": visitor.context.clock.now()}
        found = {"head": fragment("instances/head.html", **values)}
        if tab == "overview":
            found["overview"] = fragment("instances/overview.html", **values, **overview(visitor, view))
        return found

    return live.stream(request, visitor.context, parts)
