"""REST of models: the catalog, and any model of the hub."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from control_plane.accounts.dependencies import PrincipalDep
from control_plane.catalog.catalog import get_catalog
from control_plane.catalog.schemas import ModelSearch, ModelView, Resolution, ResolveRequest
from control_plane.catalog.service import resolve_model
from control_plane.context import ContextDep
from control_plane.errors import Invalid, NotFound
from control_plane.pagination import Page

router = APIRouter(tags=["models"])


class ModelNotInCatalog(NotFound):
    """The catalog does not list it; the hub may have it all the same."""

    code = "model_not_in_catalog"
    next_step = "Any model of the hub can be looked up with POST /api/v1/models/resolve."


@router.get("/models")
def list_models(_: PrincipalDep, search: Annotated[ModelSearch, Query()]) -> Page[ModelView]:
    """Search the catalog, best match first."""
    found = get_catalog().search(search.query())
    ids = [entry.id for entry in found]
    if search.cursor is not None and search.cursor not in ids:
        raise Invalid("cursor: this search has no such entry", "Leave the cursor out to start again.")
    start = ids.index(search.cursor) + 1 if search.cursor else 0
    page = found[start : start + search.limit]
    more = start + search.limit < len(found)
    return Page(items=[ModelView.of(entry) for entry in page], next_cursor=page[-1].id if more else None)


@router.get("/models/{organisation}/{name}")
def show_model(_: PrincipalDep, organisation: str, name: str) -> ModelView:
    """One entry of the catalog."""
    entry = get_catalog().get(f"{organisation}/{name}")
    if entry is None:
        raise ModelNotInCatalog(f"{organisation}/{name} is not in the catalog.")
    return ModelView.of(entry)


@router.post("/models/resolve")
def resolve(_: PrincipalDep, context: ContextDep, body: ResolveRequest) -> Resolution:
    """Facts of any model at a pinned commit, whether the engine serves it, and the hardware it fits."""
    return resolve_model(context, body)
