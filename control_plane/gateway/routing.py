"""From what a request names to the engines that can answer it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from uuid import UUID

from control_plane.accounts.principal import Principal
from control_plane.context import Context
from control_plane.downloads.service import find_progress
from control_plane.gateway.errors import ModelNotFound, NotRunning
from control_plane.instances import repository
from control_plane.instances.lifecycle import Phase
from control_plane.instances.tables import Instance, Replica
from control_plane.keys import replica_key

#: Phases that nothing but a person ends.
_RESTING = (Phase.STOPPED, Phase.FAILED)
_SOON_S, _LATER_S = 5, 30


@dataclass(frozen=True)
class Upstream:
    """An engine and the key it wants."""

    url: str
    api_key: str


@dataclass(frozen=True)
class Route:
    """An instance and its engines that are ready, in the order in which to try them."""

    instance_id: UUID
    served_model: str
    upstreams: tuple[Upstream, ...]


def by_slug(context: Context, principal: Principal, slug: str) -> Route:
    """The instance of ``/i/{slug}``. Blocks on the database.

    :raises ModelNotFound: the team has no such instance.
    :raises NotRunning: it cannot answer now.
    """
    with context.database.reading() as session:
        instance = repository.find_by_slug(session, principal.team_id, slug)
        if instance is None:
            raise ModelNotFound(f"there is no instance {slug!r}")
        replicas = repository.replicas(session, [instance.id])
    return _route(context, instance, replicas)


def by_model(context: Context, principal: Principal, model: str) -> Route:
    """The instance that ``model`` means: its slug or name, else its model id. Blocks on the database.

    Of several instances of one model a running one is preferred, then the newest.

    :raises ModelNotFound: the team has no such instance.
    :raises NotRunning: none of them can answer now.
    """
    with context.database.reading() as session:
        found = repository.live_by_any_name(session, principal.team_id, model)
        if not found:
            raise ModelNotFound(f"no instance serves {model!r}", param="model")
        chosen = min(found, key=lambda i: (model not in {i.slug, i.name}, i.phase != Phase.RUNNING))
        replicas = repository.replicas(session, [chosen.id])
    return _route(context, chosen, replicas)


def _route(context: Context, instance: Instance, replicas: list[Replica]) -> Route:
    ready = [replica for replica in replicas if replica.ready and replica.url and replica.retiring_since is None]
    if instance.phase != Phase.RUNNING or not ready:
        raise _not_running(context, instance, replicas)
    random.shuffle(ready)
    upstreams = tuple(
        Upstream(replica.url or "", replica_key(context.settings, replica.resource_name, replica.boot_token))
        for replica in ready
    )
    return Route(instance.id, instance.model, upstreams)


def _not_running(context: Context, instance: Instance, replicas: list[Replica]) -> NotRunning:
    if instance.phase in _RESTING:
        next_step = instance.next_step or "Start it again."
        return NotRunning(
            f"{instance.name} is {instance.phase}: {instance.reason}",
            next_step,
            phase=instance.phase,
            reason=instance.reason,
            retry_after_s=_LATER_S,
            should_retry=False,
        )
    reason = next((replica.condition for replica in replicas if replica.condition), None)
    if instance.phase != Phase.RUNNING or reason is None:
        reason = instance.reason
    eta_s = _eta_s(context, instance.download_id) if instance.phase == Phase.DOWNLOADING else None
    return NotRunning(
        f"{instance.name} is {instance.phase}: {reason}",
        "Try again in a few seconds.",
        phase=instance.phase,
        reason=reason,
        retry_after_s=_SOON_S if eta_s is None else max(_SOON_S, round(eta_s)),
    )


def _eta_s(context: Context, download_id: UUID | None) -> float | None:
    if download_id is None:
        return None
    with context.database.reading() as session:
        progress = find_progress(session, context, download_id)
    return progress.eta_s if progress else None
