"""``/admin/workers``: the control plane's own processes, and whether work waits that nobody takes up."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from control_plane.processes.service import workers as read_workers
from web import live
from web.templating import fragment, page
from web.visitor import AdminVisitorDep, Visitor

router = APIRouter(prefix="/admin", include_in_schema=False)


def _values(visitor: Visitor) -> dict[str, Any]:
    found = read_workers(visitor.context)
    return {"visitor": visitor, "processes": found.items, "waiting": found.waiting}


@router.get("/workers")
def workers(request: Request, visitor: AdminVisitorDep) -> Response:
    """The list."""
    return page(request, "pages/admin_workers.html", **_values(visitor))


@router.get("/workers/live")
def workers_live(request: Request, visitor: AdminVisitorDep) -> Response:
    """The list, sent again whenever it changes."""

    def parts() -> dict[str, str]:
        return {"workers": fragment("admin/workers.html", now=visitor.context.clock.now(), **_values(visitor))}

    return live.stream(request, visitor.context, parts)
