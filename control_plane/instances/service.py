"""The rules of instances: what a user may ask for, one transaction each. Reconcilers do the rest."""

from __future__ import annotations

from uuid import UUID

from control_plane.accounts.principal import Principal
from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.errors import Conflict
from control_plane.instances import repository
from control_plane.instances.change import Change, changed, found
from control_plane.instances.launch import launch
from control_plane.instances.lifecycle import Phase
from control_plane.instances.schemas import DirectAccess, EventView, InstanceView, RestartMode
from control_plane.instances.tables import Desired
from control_plane.instances.update import update
from control_plane.instances.views import view, views
from control_plane.keys import replica_key
from control_plane.pagination import Page, page_of

__all__ = [
    "direct_access",
    "events",
    "get",
    "launch",
    "list_instances",
    "restart",
    "start",
    "stop",
    "terminate",
    "update",
]

#: Phases from which a start, or a restart, begins at the beginning.
_RESTING = (Phase.STOPPED, Phase.FAILED)
#: Phases in which there is no engine yet that could be replaced.
_BEFORE_ENGINES = (Phase.REQUESTED, Phase.DOWNLOADING)
#: Phases in which a start has nothing left to do.
_ON_ITS_WAY = (Phase.REQUESTED, Phase.DOWNLOADING, Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING, Phase.SLEEPING)


def get(context: Context, principal: Principal, instance_id: UUID) -> InstanceView:
    """One instance.

    :raises NotFound: there is none, or it is another team's.
    """
    with context.database.reading() as session:
        return view(session, context, found(repository.find(session, principal.team_id, instance_id)))


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
        found(repository.find(session, principal.team_id, instance_id))
        rows = audit.of_object(session, instance_id, after=cursor, limit=limit + 1)
    return page_of([EventView.model_validate(row, from_attributes=True) for row in rows], limit)


def stop(context: Context, principal: Principal, instance_id: UUID) -> InstanceView:
    """Drain and end the engines; keep weights, logs and settings. Nothing happens if it is stopped already."""

    def apply(change: Change) -> None:
        if change.instance.phase in {Phase.STOPPED, Phase.STOPPING}:
            return
        change.demand(Phase.STOPPING, "stopped")
        change.instance.desired = Desired.STOPPED
        change.move(Phase.STOPPING, "asked to stop")
        change.cancel_download()

    return changed(context, principal, instance_id, apply)


def start(context: Context, principal: Principal, instance_id: UUID) -> InstanceView:
    """Start a stopped or failed instance again. Nothing happens if it is on its way already."""

    def apply(change: Change) -> None:
        if change.instance.phase not in _ON_ITS_WAY:
            change.begin_again("asked to start")

    return changed(context, principal, instance_id, apply)


def restart(
    context: Context, principal: Principal, instance_id: UUID, mode: RestartMode = RestartMode.ROLLING
) -> InstanceView:
    """Replace the engines by new ones: one after another while the others serve, or all at once.

    Nothing happens before there are engines; an instance that rests is started.
    """

    def apply(change: Change) -> None:
        instance = change.instance
        if instance.phase in _BEFORE_ENGINES:
            return
        if instance.phase in _RESTING:
            change.begin_again("asked to restart")
        elif instance.phase == Phase.RUNNING and mode is RestartMode.ROLLING:
            change.begin_generation("asked to restart, one engine after another,")
        elif instance.phase == Phase.PROVISIONING:
            change.begin_phase_again("asked to restart")
        else:
            change.demand(Phase.PROVISIONING, "restarted")
            instance.generation += 1
            change.reset_replicas()
            change.move(Phase.PROVISIONING, "asked to restart")

    return changed(context, principal, instance_id, apply)


def terminate(context: Context, principal: Principal, instance_id: UUID) -> InstanceView:
    """End the instance for good; its weights stay in the cache. Nothing happens if it is on its way out already."""

    def apply(change: Change) -> None:
        if change.instance.phase in {Phase.TERMINATING, Phase.TERMINATED}:
            return
        change.instance.desired = Desired.TERMINATED
        change.move(Phase.TERMINATING, "asked to terminate")
        change.cancel_download()

    return changed(context, principal, instance_id, apply)


def direct_access(context: Context, principal: Principal, instance_id: UUID) -> DirectAccess:
    """Address and key of an engine itself, for programs on its machine. Noted in the audit trail.

    :raises Conflict: no engine of the instance is ready.
    """
    with context.database.transaction() as session:
        instance = found(repository.find(session, principal.team_id, instance_id))
        for replica in repository.replicas(session, [instance.id]):
            if replica.ready and replica.url:
                change = Change(session, context, principal, instance)
                change.record("direct_key_read", "the engine's own key was read")
                key = replica_key(context.settings, replica.resource_name, replica.boot_token)
                return DirectAccess(direct_url=f"{replica.url}/v1", api_key=key)
    raise Conflict(f"{instance.name} is {instance.phase}: no engine is ready", "Wait until it is running.")
