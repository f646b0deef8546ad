"""Launching: admission first, then one row, and a hint that it is there."""

from __future__ import annotations

import hashlib
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from control_plane.accounts.principal import Principal
from control_plane.context import Context
from control_plane.errors import Conflict
from control_plane.ids import random_suffix, slugify
from control_plane.instances import repository
from control_plane.instances.admission import Admission, admit
from control_plane.instances.change import Change
from control_plane.instances.lifecycle import Phase
from control_plane.instances.schemas import InstanceView, LaunchRequest
from control_plane.instances.tables import Instance
from control_plane.instances.update import check_count
from control_plane.instances.views import view


def launch(
    context: Context, principal: Principal, request: LaunchRequest, *, idempotency_key: str | None = None
) -> InstanceView:
    """Launch a model. The same ``idempotency_key`` and request give the same instance, however often they come.

    :raises Conflict: the name is taken, or the key was used for another request.
    :raises SlipwayError: whatever speaks against it; see ``admission.admit``.
    """
    check_count(request.replicas)
    digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    if idempotency_key is not None and (earlier := _earlier(context, principal, idempotency_key, digest)):
        return earlier
    admission = admit(context, request)
    try:
        with context.database.transaction() as session:
            instance = _insert(session, context, principal, request, admission)
            instance.idempotency_key, instance.request_digest = idempotency_key, digest
            session.flush()
            shown = view(session, context, instance)
    except IntegrityError as error:
        if idempotency_key is not None and (earlier := _earlier(context, principal, idempotency_key, digest)):
            return earlier  # the same request, sent twice at once
        if request.name is None:
            raise Conflict("two launches chose the same name at once", "Send it again.") from error
        detail = f"there is already an instance named {request.name!r}"
        raise Conflict(detail, "Choose another name, or terminate that one first.") from error
    return shown


def _earlier(context: Context, principal: Principal, key: str, digest: str) -> InstanceView | None:
    with context.database.reading() as session:
        instance = repository.find_by_idempotency_key(session, principal.team_id, key)
        if instance is None:
            return None
        if instance.request_digest != digest:
            detail = "this Idempotency-Key was used for a different request"
            raise Conflict(detail, "Send a new key with every new request.")
        return view(session, context, instance)


def _insert(
    session: Session, context: Context, principal: Principal, request: LaunchRequest, admission: Admission
) -> Instance:
    now = context.clock.now()
    name = request.name or _free_name(session, principal.team_id, admission.model)
    # The tail keeps other teams' slugs from being guessed, and an old API URL from reaching a new instance.
    slug = f"{slugify(name) or 'instance'}-{random_suffix()}"
    instance = Instance(
        team_id=principal.team_id,
        created_by=principal.user_id,
        name=name,
        slug=slug,
        model=admission.model,
        revision=admission.revision,
        commit_sha=admission.commit_sha,
        hardware=admission.offer.id,
        provider=admission.offer.provider,
        quantization=request.quantization,
        engine=request.engine.model_dump(exclude_none=True),
        replica_count=request.replicas.max,
        accelerator_count=admission.fit.accelerator_count,
        memory_bytes=admission.memory_bytes,
        limits=request.limits.model_dump(exclude_none=True),
        phase=Phase.REQUESTED,
        reason="waiting for a worker",
        since=now,
        next_attempt_at=now,
        price_per_hour=admission.fit.price_per_hour * request.replicas.max,
        created_at=now,
    )
    session.add(instance)
    change = Change(session, context, principal, instance)
    change.record("requested", f"launch of {instance.model} on {instance.hardware}")
    change.hint()
    return instance


def _free_name(session: Session, team_id: UUID, model: str) -> str:
    """The model's own name, numbered where that is taken."""
    base = model.rpartition("/")[2][:50]
    name, number = base, 1
    while repository.find_by_name(session, team_id, name) is not None:
        number += 1
        name = f"{base}-{number}"
    return name
