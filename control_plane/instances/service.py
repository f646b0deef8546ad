"""The rules of instances: what a user may ask for, one transaction each. Reconcilers do the rest."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from control_plane.accounts.principal import Principal
from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.errors import Conflict, NotFound
from control_plane.instances import repository
from control_plane.instances.change import Change
from control_plane.instances.launch import launch
from control_plane.instances.lifecycle import Phase
from control_plane.instances.schemas import DirectAccess, EventView, InstanceUpdate, InstanceView
from control_plane.instances.tables import Desired, Instance
from control_plane.instances.views import view, views
from control_plane.keys import replica_key
from control_plane.pagination import Page, page_of

__all__ = [
    "direct_access",
    "events",
    "get",
    "launch",
    "list_instances",
    "rename",
    "restart",
    "start",
    "stop",
    "terminate",
]

#: Phases from which a start, or a restart, begins at the beginning.
_RESTING = (Phase.STOPPED, Phase.FAILED)
#: Phases in which a start has nothing left to do.
_ON_ITS_WAY = (Phase.REQUESTED, Phase.DOWNLOADING, Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING, Phase.SLEEPING)


def get(context: Context, principal: Principal, instance_id: UUID) -> InstanceView:
    """One instance.

    :raises NotFound: there is none, or it is another team's.
    """
    with context.database.reading() as session:
        return view(session, context, _found(repository.find(session, principal.team_id, instance_id)))


def list_instances(
    context: Context, principal: Principal, *, cursor: UUID | None = None, limit: int = 50, live: bool = False
) -> Page[InstanceView]:
    """The team's instances, newest first; ``live`` leaves out those that are terminated."""
    with context.database.reading() as session:
        rows = repository.of_team(session, principal.team_id, before=cursor, limit=limit + 1, live=live)
        return page_of(views(session, context, rows), limit)


def events(
    context: Context, principal: Principal, instance_id: UUID, *, cursor: UUID | None = None, limit: int = 200
) -> Page[EventView]:
    """An instance's timeline, oldest first.

    :raises NotFound: there is no such instance, or it is another team's.
    """
    with context.database.reading() as session:
        _found(repository.find(session, principal.team_id, instance_id))
        rows = audit.of_object(session, instance_id, after=cursor, limit=limit + 1)
    return page_of([EventView.model_validate(row, from_attributes=True) for row in rows], limit)


def rename(context: Context, principal: Principal, instance_id: UUID, update: InstanceUpdate) -> InstanceView:
    """Give an instance another name; its slug, and so its URL, stays.

    :raises Conflict: the name is taken.
    """

    def apply(change: Change) -> None:
        instance = change.instance
        if update.name is not None and update.name != instance.name:
            message = f"renamed from {instance.name} to {update.name}"
            instance.name = update.name
            change.record("renamed", message)

    try:
        return _change(context, principal, instance_id, apply)
    except IntegrityError as error:
        detail = f"there is already an instance named {update.name!r}"
        raise Conflict(detail, "Choose another name.") from error


def stop(context: Context, principal: Principal, instance_id: UUID) -> InstanceView:
    """Drain and end the engines; keep weights, logs and settings. Nothing happens if it is stopped already."""

    def apply(change: Change) -> None:
        if change.instance.phase in {Phase.STOPPED, Phase.STOPPING}:
            return
        change.demand(Phase.STOPPING, "stopped")
        change.instance.desired = Desired.STOPPED
        change.move(Phase.STOPPING, "asked to stop")
        change.cancel_download()

    return _change(context, principal, instance_id, apply)


def start(context: Context, principal: Principal, instance_id: UUID) -> InstanceView:
    """Start a stopped or failed instance again. Nothing happens if it is on its way already."""

    def apply(change: Change) -> None:
        if change.instance.phase not in _ON_ITS_WAY:
            change.begin_again("asked to start")

    return _change(context, principal, instance_id, apply)


def restart(context: Context, principal: Principal, instance_id: UUID) -> InstanceView:
    """Replace the engines by new ones; start the instance where it rests."""

    def apply(change: Change) -> None:
        if change.instance.phase in _RESTING:
            change.begin_again("asked to restart")
            return
        if change.instance.phase == Phase.PROVISIONING:
            change.begin_phase_again("asked to restart")
            return
        change.demand(Phase.PROVISIONING, "restarted")
        change.reset_replicas()
        change.move(Phase.PROVISIONING, "asked to restart")

    return _change(context, principal, instance_id, apply)


def terminate(context: Context, principal: Principal, instance_id: UUID) -> InstanceView:
    """End the instance for good; its weights stay in the cache. Nothing happens if it is on its way out already."""

    def apply(change: Change) -> None:
        if change.instance.phase in {Phase.TERMINATING, Phase.TERMINATED}:
            return
        change.instance.desired = Desired.TERMINATED
        change.move(Phase.TERMINATING, "asked to terminate")
        change.cancel_download()

    return _change(context, principal, instance_id, apply)


def direct_access(context: Context, principal: Principal, instance_id: UUID) -> DirectAccess:
    """Address and key of an engine itself, for programs on its machine. Noted in the audit trail.

    :raises Conflict: no engine of the instance is ready.
    """
    with context.database.transaction() as session:
        instance = _found(repository.find(session, principal.team_id, instance_id))
        for replica in repository.replicas(session, [instance.id]):
            if replica.ready and replica.url:
                change = Change(session, context, principal, instance)
                change.record("direct_key_read", "the engine's own key was read")
                key = replica_key(context.settings, replica.resource_name, replica.boot_token)
                return DirectAccess(direct_url=f"{replica.url}/v1", api_key=key)
    raise Conflict(f"{instance.name} is {instance.phase}: no engine is ready", "Wait until it is running.")


def _change(context: Context, principal: Principal, instance_id: UUID, apply: Callable[[Change], None]) -> InstanceView:
    with context.database.transaction() as session:
        instance = _found(repository.find_for_update(session, principal.team_id, instance_id))
        apply(Change(session, context, principal, instance))
        session.flush()
        return view(session, context, instance)


def _found(instance: Instance | None) -> Instance:
    if instance is None:
        raise NotFound("there is no such instance")
    return instance
