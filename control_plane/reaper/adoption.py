"""Adopting an orphan: an engine that runs, and that no row knows, becomes an instance's again.

Its name says which instance and replica it was, its labels what it serves; its key follows from its name and boot
token, so that whoever shares the root secret can use it. The row that is made looks like the one that was lost.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from control_plane.accounts.principal import Principal
from control_plane.context import Context
from control_plane.downloads.tables import Download, DownloadState
from control_plane.errors import Conflict
from control_plane.hub.ids import ModelId
from control_plane.ids import random_suffix, slugify
from control_plane.instances import repository as instances
from control_plane.instances.change import Change
from control_plane.instances.labels import Described, described, safe
from control_plane.instances.lifecycle import SERVING_PHASES, Phase
from control_plane.instances.schemas import InstanceView
from control_plane.instances.tables import Instance, Replica
from control_plane.instances.views import view
from control_plane.providers.base import HOLDING, HardwareOffer, ProviderUnavailable, ReplicaState, ReplicaStatus
from control_plane.reaper import repository
from control_plane.reaper.decisions import found
from control_plane.reaper.match import ReplicaName, replica_named
from control_plane.reaper.tables import Orphan, OrphanState

_DELETE_INSTEAD = "Delete it, and launch the model again."


class _Found(NamedTuple):
    """What is known of an orphan: its name, its labels, what its provider says now, and the hardware it holds."""

    name: ReplicaName
    label: Described
    status: ReplicaStatus
    offer: HardwareOffer | None


def adopt(context: Context, principal: Principal, orphan_id: UUID) -> InstanceView:
    """Make an instance of an orphan in the caller's team, or a further replica of the instance that it belongs to.

    Adopting it again gives the same instance.

    :raises Conflict: it is no engine, does not say what it serves, does not run any more, or is not unknown.
    :raises ProviderUnavailable: its provider cannot be asked.
    """
    with context.database.reading() as session:
        orphan = found(session.get(Orphan, orphan_id))
    if orphan.state == OrphanState.ADOPTED:
        return _adopted(context, orphan)
    what = _look(context, orphan)
    try:
        with context.database.transaction() as session:
            row = found(repository.orphan(session, orphan_id))
            if row.state != OrphanState.UNKNOWN or row.boot_token != orphan.boot_token:
                raise Conflict(f"{row.name} is {row.state} by now", "Look at the list again.")
            instance = _take_in(session, context, principal, row, what)
            session.flush()
            return view(session, context, instance)
    except IntegrityError as error:
        raise Conflict("its name was taken at the same moment", "Adopt it again.") from error


def _adopted(context: Context, orphan: Orphan) -> InstanceView:
    name = replica_named(orphan.name)
    with context.database.reading() as session:
        instance = session.get(Instance, name.instance_id) if name else None
        if instance is None:
            raise Conflict(f"{orphan.name} was adopted by an instance that is no more", _DELETE_INSTEAD)
        return view(session, context, instance)


def _look(context: Context, orphan: Orphan) -> _Found:
    """Talks to the provider."""
    name, label = replica_named(orphan.name), described(orphan.labels)
    if orphan.state != OrphanState.UNKNOWN:
        raise Conflict(f"{orphan.name} is {orphan.state}: {orphan.reason}", "Only what no row knows can be adopted.")
    if name is None:
        raise Conflict(f"{orphan.name} is no engine", "Delete it.")
    if label.model is None:
        raise Conflict(f"the labels of {orphan.name} do not say which model it serves", _DELETE_INSTEAD)
    ModelId.parse(label.model)
    provider = context.providers.get(orphan.provider)
    if provider is None:
        detail = f"provider {orphan.provider!r} is not configured"
        raise ProviderUnavailable(detail, "Name it in SLIPWAY_PROVIDERS again.")
    status = provider.find(orphan.name)
    if status.state not in HOLDING or status.boot_token != orphan.boot_token:
        raise Conflict(f"{orphan.name} does not run any more", "It leaves the list by itself, or delete it.")
    offers = {safe(offer.id): offer for offer in provider.offers()}
    return _Found(name, label, status, offers.get(label.hardware or ""))


def _take_in(session: Session, context: Context, principal: Principal, orphan: Orphan, what: _Found) -> Instance:
    now = context.clock.now()
    instance = session.exec(
        select(Instance).where(Instance.id == what.name.instance_id).with_for_update()
    ).one_or_none()
    if instance is None:
        instance = _new_instance(session, context, principal, orphan, what)
    else:
        _enlarge(Change(session, context, principal, instance))
    is_running = what.status.state is ReplicaState.RUNNING
    if is_running and instance.billing_since is None:
        instance.billing_since = now
    session.add(instance)
    session.flush()
    session.add(
        Replica(
            instance_id=instance.id,
            ordinal=what.name.ordinal,
            provider=orphan.provider,
            resource_name=orphan.name,
            boot_token=orphan.boot_token or "",
            generation=instance.generation,
            node=what.status.node,
            url=what.status.url,
            created_at=now,
            started_at=now if is_running else None,
            last_seen_at=now if is_running else None,
        )
    )
    orphan.state, orphan.decision, orphan.decided_by = OrphanState.ADOPTED, "adopt", principal.actor
    orphan.decided_at = now
    change = Change(session, context, principal, instance)
    change.record("adopted", f"{principal.name} adopted {orphan.name}, which ran on {orphan.provider} unknown to us")
    change.hint()
    return instance


def _new_instance(session: Session, context: Context, principal: Principal, orphan: Orphan, what: _Found) -> Instance:
    now, label = context.clock.now(), what.label
    model = label.model or ""
    price = what.offer.price_per_hour if what.offer else 0.0
    name = _free_name(session, principal.team_id, label.name or model.rpartition("/")[2])
    return Instance(
        id=what.name.instance_id,
        team_id=principal.team_id,
        created_by=principal.user_id,
        name=name,
        slug=_free_slug(session, label.slug, name),
        model=model,
        commit_sha=label.commit_sha,
        download_id=_download_id(session, model, label.commit_sha),
        hardware=what.offer.id if what.offer else label.hardware,
        provider=orphan.provider,
        accelerator_count=label.devices,
        memory_bytes=label.memory_bytes,
        generation=label.generation,
        phase=Phase.RUNNING,
        reason=f"adopted by {principal.name}; looking whether it answers",
        since=now,
        next_attempt_at=now,
        price_per_hour=price * max(1, label.devices),
        created_at=now,
    )


def _enlarge(change: Change) -> None:
    """One replica more, at its share of the price; what was used until now is charged first."""
    instance = change.instance
    if instance.phase not in SERVING_PHASES:
        raise Conflict(f"its instance {instance.name} is {instance.phase}", "Delete it.")
    change.charge()
    instance.price_per_hour *= (instance.replica_count + 1) / instance.replica_count
    instance.replica_count += 1


def _download_id(session: Session, model: str, commit_sha: str | None) -> UUID | None:
    """The weights that its next boot would start from, if they are here; else it would fetch them anew."""
    query = select(Download.id).where(
        Download.model == model, Download.commit_sha == (commit_sha or ""), col(Download.state) == DownloadState.DONE
    )
    return session.exec(query).first()


def _free_name(session: Session, team_id: UUID, wanted: str) -> str:
    base = wanted[:58]
    name, number = base, 1
    while instances.find_by_name(session, team_id, name) is not None:
        number += 1
        name = f"{base}-{number}"
    return name


def _free_slug(session: Session, wanted: str | None, name: str) -> str:
    """The one it had, so that its URL works as before; another if somebody has it."""
    taken = session.exec(select(Instance.id).where(Instance.slug == wanted)).first() is not None
    return wanted if wanted and not taken else f"{slugify(name) or 'instance'}-{random_suffix()}"
