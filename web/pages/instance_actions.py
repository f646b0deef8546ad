"""What the buttons and forms on an instance's page do: act, then back to the page; errors are shown on it."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from control_plane.accounts import api_keys
from control_plane.errors import SlipwayError
from control_plane.instances import service
from control_plane.instances.schemas import InstanceUpdate, InstanceView, ReplicaCount
from web.forms import FormInvalid, parsed
from web.instance_actions import REPLACE, RESTART, START, STOP, Action
from web.instance_view import api, head, settings
from web.templating import page
from web.visitor import Visitor, VisitorDep

router = APIRouter(prefix="/instances/{instance_id}", include_in_schema=False)


def _act(visitor: Visitor, action: Action, instance_id: UUID) -> Response:
    action.run(visitor.context, visitor.principal, instance_id)
    return RedirectResponse(f"/instances/{instance_id}", 303)


@router.post("/stop")
def stop(visitor: VisitorDep, instance_id: UUID) -> Response:
    """Let it finish what it is doing, then end its engines."""
    return _act(visitor, STOP, instance_id)


@router.post("/start")
def start(visitor: VisitorDep, instance_id: UUID) -> Response:
    """Bring it up again."""
    return _act(visitor, START, instance_id)


@router.post("/restart")
def restart(visitor: VisitorDep, instance_id: UUID) -> Response:
    """Put new engines in the place of the old ones, one after another."""
    return _act(visitor, RESTART, instance_id)


@router.post("/replace")
def replace(visitor: VisitorDep, instance_id: UUID) -> Response:
    """End all engines, then start new ones."""
    return _act(visitor, REPLACE, instance_id)


@router.post("/rename")
def rename(request: Request, visitor: VisitorDep, instance_id: UUID, name: Annotated[str, Form()] = "") -> Response:
    """Another name, the same URL."""
    try:
        if not name.strip():
            raise FormInvalid({"name": "is needed"})
        update = parsed(InstanceUpdate, {"name": name.strip()})
        service.update(visitor.context, visitor.principal, instance_id, update)
    except SlipwayError as error:
        view = service.get(visitor.context, visitor.principal, instance_id)
        values = settings(view) | {"name": name, "name_error": _words(error)}
        return _page(request, visitor, view, "settings", status=error.status, **values)
    return RedirectResponse(f"/instances/{instance_id}?tab=settings", 303)


@router.post("/replicas")
def resize(request: Request, visitor: VisitorDep, instance_id: UUID, replicas: Annotated[str, Form()] = "") -> Response:
    """More engines, or fewer."""
    try:
        if not replicas.strip():
            raise FormInvalid({"replicas": "is needed"})
        count = parsed(ReplicaCount, {"min": replicas.strip(), "max": replicas.strip()})
        service.update(visitor.context, visitor.principal, instance_id, InstanceUpdate(replicas=count))
    except SlipwayError as error:
        view = service.get(visitor.context, visitor.principal, instance_id)
        words = next(iter(error.messages.values())) if isinstance(error, FormInvalid) else _words(error)
        values = settings(view) | {"replicas": replicas, "replicas_error": words}
        return _page(request, visitor, view, "settings", status=error.status, **values)
    return RedirectResponse(f"/instances/{instance_id}", 303)


@router.post("/keys")
def create_key(request: Request, visitor: VisitorDep, instance_id: UUID) -> Response:
    """A key for the lines on the API tab. The answer is no redirect: it is the only page that ever shows the key."""
    view = service.get(visitor.context, visitor.principal, instance_id)
    issued = api_keys.create(visitor.context, visitor.principal, name=f"for {view.name}"[:100])
    return _page(request, visitor, view, "api", **api(view, issued.secret) | {"issued": issued})


@router.get("/terminate")
def confirm_terminate(request: Request, visitor: VisitorDep, instance_id: UUID) -> Response:
    """What would be lost, what is kept, and the question for the name."""
    view = service.get(visitor.context, visitor.principal, instance_id)
    return page(request, "pages/terminate.html", visitor=visitor, instance=view, name="", error=None)


@router.post("/terminate")
def terminate(request: Request, visitor: VisitorDep, instance_id: UUID, name: Annotated[str, Form()] = "") -> Response:
    """End it for good, if the name is right."""
    view = service.get(visitor.context, visitor.principal, instance_id)
    if name.strip() != view.name:
        error = f"The name is {view.name}."
        return page(request, "pages/terminate.html", status=422, visitor=visitor, instance=view, name=name, error=error)
    service.terminate(visitor.context, visitor.principal, instance_id)
    return RedirectResponse(f"/instances/{instance_id}", 303)


def _page(
    request: Request, visitor: Visitor, view: InstanceView, tab: str, *, status: int = 200, **values: Any
) -> Response:
    return page(request, "pages/instance.html", status=status, **head(visitor, view, tab), **values)


def _words(error: SlipwayError) -> str:
    if isinstance(error, FormInvalid):
        return "; ".join(error.messages.values())
    return f"{error.detail}. {error.next_step}"
