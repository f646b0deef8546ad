"""Changing what an instance is: its name, its engine options, how many replicas it has."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.exc import IntegrityError

from control_plane.accounts.principal import Principal
from control_plane.context import Context
from control_plane.errors import Conflict, Invalid, Unavailable
from control_plane.instances import repository
from control_plane.instances.admission import Admission, DoesNotFit, admit
from control_plane.instances.change import Change, changed, found
from control_plane.instances.lifecycle import SERVING_PHASES, Phase
from control_plane.instances.schemas import EngineOptions, InstanceUpdate, InstanceView, LaunchRequest, ReplicaCount
from control_plane.instances.tables import Instance

_ON_THE_WAY_OUT = (Phase.TERMINATING, Phase.TERMINATED)


def update(context: Context, principal: Principal, instance_id: UUID, wanted: InstanceUpdate) -> InstanceView:
    """Change an instance. Its slug, and so its URL, stays; where it serves, its engines follow one by one.

    :raises Conflict: the name is taken, or the instance is on its way out.
    :raises SlipwayError: the engine would not fit with these options; see ``admission.admit``.
    """
    if wanted.replicas is not None:
        check_count(wanted.replicas)
    admission = _admission(context, principal, instance_id, wanted.engine) if wanted.engine else None

    def apply(change: Change) -> None:
        if (wanted.engine or wanted.replicas) and change.instance.phase in _ON_THE_WAY_OUT:
            detail = f"{change.instance.name} is {change.instance.phase} and cannot be changed"
            raise Conflict(detail, "Launch another.")
        if wanted.name is not None and wanted.name != change.instance.name:
            _rename(change, wanted.name)
        if wanted.replicas is not None and wanted.replicas.max != change.instance.replica_count:
            _resize(change, wanted.replicas.max)
        if wanted.engine is not None:
            _set_engine(change, wanted.engine, admission)

    try:
        return changed(context, principal, instance_id, apply)
    except IntegrityError as error:
        detail = f"there is already an instance named {wanted.name!r}"
        raise Conflict(detail, "Choose another name.") from error


def check_count(replicas: ReplicaCount) -> None:
    """:raises Invalid: the two numbers differ."""
    if replicas.min != replicas.max:
        raise Invalid("replicas.min and replicas.max differ", "Set both to the same number: replicas do not scale yet.")


def _admission(context: Context, principal: Principal, instance_id: UUID, engine: EngineOptions) -> Admission | None:
    """What the engine needs with these options; None where that changes nothing, or cannot be told now.

    :raises DoesNotFit: not even in the place of the present engine.
    """
    with context.database.reading() as session:
        instance = found(repository.find(session, principal.team_id, instance_id))
    if engine == EngineOptions(**instance.engine) or instance.phase in _ON_THE_WAY_OUT:
        return None
    request = LaunchRequest(
        model=instance.model,
        revision=instance.commit_sha or instance.revision,
        hardware=instance.hardware,
        quantization=instance.quantization,
        engine=engine,
    )
    try:
        return admit(context, request)
    except DoesNotFit:
        if instance.phase not in SERVING_PHASES:
            raise
        # Where an offer's memory is what is free now, the present engine stands in its own successor's way.
        admit(context, request, freed_bytes=instance.memory_bytes)
        return None
    except Unavailable:
        return None  # the engine itself will say, and a roll stops at one that does not come up


def _rename(change: Change, name: str) -> None:
    message = f"renamed from {change.instance.name} to {name}"
    change.instance.name = name
    change.record("renamed", message)


def _resize(change: Change, count: int) -> None:
    instance = change.instance
    message = f"from {instance.replica_count} to {count} replicas, as {change.principal.name} asked"
    _reprice(change, instance.price_per_hour / instance.replica_count, count)
    change.record("resized", message)
    change.look_now()


def _set_engine(change: Change, engine: EngineOptions, admission: Admission | None) -> None:
    instance = change.instance
    options = engine.model_dump(exclude_none=True)
    if options == instance.engine:
        return
    instance.engine = options
    if admission is not None:
        instance.memory_bytes = admission.memory_bytes
        instance.accelerator_count = admission.fit.accelerator_count
        _reprice(change, admission.fit.price_per_hour, instance.replica_count)
    change.begin_generation("other engine options were asked for")


def _reprice(change: Change, per_replica: float, count: int) -> None:
    """What was used until now is charged at the present price."""
    instance: Instance = change.instance
    change.charge()
    instance.replica_count = count
    instance.price_per_hour = per_replica * count
