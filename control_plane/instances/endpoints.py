"""REST of instances."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query

from control_plane.accounts.dependencies import PrincipalDep
from control_plane.context import ContextDep
from control_plane.instances import live_endpoints, service
from control_plane.instances.schemas import DirectAccess, InstanceUpdate, InstanceView, LaunchRequest, RestartRequest
from control_plane.pagination import Page

router = APIRouter(prefix="/instances", tags=["instances"])
router.include_router(live_endpoints.router)


@router.post("", status_code=202)
def launch(
    body: LaunchRequest,
    context: ContextDep,
    principal: PrincipalDep,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> InstanceView:
    """Launch a model: checked now, then done by the workers."""
    return service.launch(context, principal, body, idempotency_key=idempotency_key)


@router.get("")
def list_instances(
    context: ContextDep,
    principal: PrincipalDep,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    live: Annotated[bool, Query(description="Leave out instances that are terminated.")] = False,
) -> Page[InstanceView]:
    """The team's instances, newest first."""
    return service.list_instances(context, principal, cursor=cursor, limit=limit, live=live)


@router.get("/{instance_id}")
def get_instance(instance_id: UUID, context: ContextDep, principal: PrincipalDep) -> InstanceView:
    """One instance."""
    return service.get(context, principal, instance_id)


@router.patch("/{instance_id}")
def update(instance_id: UUID, body: InstanceUpdate, context: ContextDep, principal: PrincipalDep) -> InstanceView:
    """Give an instance another name (its URL stays), other engine options (its engines are replaced one after another)
    or another number of replicas."""
    return service.update(context, principal, instance_id, body)


@router.delete("/{instance_id}", status_code=202)
def terminate(instance_id: UUID, context: ContextDep, principal: PrincipalDep) -> InstanceView:
    """End an instance for good; the downloaded weights stay."""
    return service.terminate(context, principal, instance_id)


@router.post("/{instance_id}/stop", status_code=202)
def stop(instance_id: UUID, context: ContextDep, principal: PrincipalDep) -> InstanceView:
    """Drain and end the engines; weights, logs and settings are kept."""
    return service.stop(context, principal, instance_id)


@router.post("/{instance_id}/start", status_code=202)
def start(instance_id: UUID, context: ContextDep, principal: PrincipalDep) -> InstanceView:
    """Start a stopped or failed instance again."""
    return service.start(context, principal, instance_id)


@router.post("/{instance_id}/restart", status_code=202)
def restart(
    instance_id: UUID, context: ContextDep, principal: PrincipalDep, body: RestartRequest | None = None
) -> InstanceView:
    """Replace the engines by new ones: one after another while the others serve, or all at once."""
    return service.restart(context, principal, instance_id, (body or RestartRequest()).mode)


@router.get("/{instance_id}/direct-key")
def direct_key(instance_id: UUID, context: ContextDep, principal: PrincipalDep) -> DirectAccess:
    """Address and key of an engine itself; audited."""
    return service.direct_access(context, principal, instance_id)
