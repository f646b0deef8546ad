"""``/keys``: API keys, made and revoked."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from control_plane.accounts import api_keys
from control_plane.accounts.schemas import KeyCreate
from control_plane.errors import Invalid
from web.forms import parsed
from web.templating import page
from web.visitor import Visitor, VisitorDep

router = APIRouter(include_in_schema=False)

#: Keys on one page; older ones follow by ``?before=``.
PAGE_SIZE = 100


def _page(
    request: Request,
    visitor: Visitor,
    *,
    before: UUID | None = None,
    name: str = "",
    error: Invalid | None = None,
    issued: api_keys.IssuedKey | None = None,
) -> Response:
    rows = api_keys.listing(visitor.context, visitor.principal, before=before, limit=PAGE_SIZE + 1)
    return page(
        request,
        "pages/keys.html",
        status=error.status if error else 200,
        visitor=visitor,
        keys=rows[:PAGE_SIZE],
        older_than=rows[PAGE_SIZE - 1].id if len(rows) > PAGE_SIZE else None,
        name=name,
        error=error,
        issued=issued,
    )


@router.get("/keys")
def keys(request: Request, visitor: VisitorDep, before: UUID | None = None) -> Response:
    """The list, newest first."""
    return _page(request, visitor, before=before)


@router.post("/keys")
def create(request: Request, visitor: VisitorDep, name: Annotated[str, Form()] = "") -> Response:
    """Make a key. The answer is no redirect: it is the only page that ever shows the key."""
    try:
        body = parsed(KeyCreate, {"name": name})
        issued = api_keys.create(visitor.context, visitor.principal, name=body.name)
    except Invalid as error:
        return _page(request, visitor, name=name, error=error)
    return _page(request, visitor, issued=issued)


@router.post("/keys/{key_id}/revoke")
def revoke(visitor: VisitorDep, key_id: UUID) -> Response:
    """End a key for good."""
    api_keys.revoke(visitor.context, visitor.principal, key_id)
    return RedirectResponse("/keys", 303)
