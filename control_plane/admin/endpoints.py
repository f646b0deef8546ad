"""REST for administrators: what providers have, how the control plane does, and everything of every team."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from control_plane.accounts.dependencies import AdminDep
from control_plane.admin import service
from control_plane.admin.schemas import AdminDownloadView, AdminInstanceView
from control_plane.context import ContextDep
from control_plane.instances.brake import confirm_loss as confirm
from control_plane.instances.schemas import InstanceView
from control_plane.pagination import Page
from control_plane.processes.schemas import WorkersView
from control_plane.processes.service import workers
from control_plane.reaper import adoption, decisions, views
from control_plane.reaper.schemas import OrphansView, OrphanView, ProviderView

router = APIRouter(prefix="/admin", tags=["admin"])

LimitQuery = Annotated[int, Query(ge=1, le=200)]


@router.get("/orphans")
def list_orphans(context: ContextDep, _: AdminDep) -> OrphansView:
    """What providers have of ours that no row wants, and when each was last asked."""
    return views.orphans(context)


@router.post("/orphans/{orphan_id}/delete", status_code=202)
def delete_orphan(orphan_id: UUID, context: ContextDep, principal: AdminDep) -> OrphanView:
    """Have it deleted, however often that takes."""
    return decisions.delete(context, principal, orphan_id)


@router.post("/orphans/{orphan_id}/adopt", status_code=202)
def adopt_orphan(orphan_id: UUID, context: ContextDep, principal: AdminDep) -> InstanceView:
    """Make an instance of it in the caller's team, or a further replica of the instance it belongs to."""
    return adoption.adopt(context, principal, orphan_id)


@router.get("/providers")
def list_providers(context: ContextDep, _: AdminDep) -> Page[ProviderView]:
    """Every provider's list against our rows, as of when it was last read."""
    with context.database.reading() as session:
        return Page(items=views.providers(session, context))


@router.post("/providers/{name}/confirm-loss", status_code=202)
def confirm_loss(name: str, context: ContextDep, principal: AdminDep) -> ProviderView:
    """What looks gone there is gone: it may be replaced."""
    confirm(context, principal, name)
    with context.database.reading() as session:
        return next(provider for provider in views.providers(session, context) if provider.name == name)


@router.get("/workers")
def list_workers(context: ContextDep, _: AdminDep) -> WorkersView:
    """The control plane's processes, and whether rows wait that nobody claims."""
    return workers(context)


@router.get("/instances")
def list_instances(
    context: ContextDep,
    _: AdminDep,
    phase: Annotated[str | None, Query(max_length=20)] = None,
    provider: Annotated[str | None, Query(max_length=32)] = None,
    cursor: UUID | None = None,
    limit: LimitQuery = 50,
) -> Page[AdminInstanceView]:
    """Every team's instances, newest first."""
    return service.list_instances(context, phase=phase, provider=provider, cursor=cursor, limit=limit)


@router.get("/downloads")
def list_downloads(
    context: ContextDep, _: AdminDep, cursor: UUID | None = None, limit: LimitQuery = 50
) -> Page[AdminDownloadView]:
    """Every download, newest first."""
    return service.list_downloads(context, cursor=cursor, limit=limit)
