"""Moving one instance one step: claim its row, do the step with no session held, write the outcome if still ours.

::

    claim ──► Situation ──► step(situation) ──► Outcome ──► apply, guarded by lease token and phase
    (short transaction)     (network, no session)           (short transaction)

A process killed at any point leaves at worst a lease that runs out; the next step finds out what it did.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlmodel import Session

from control_plane import leases
from control_plane.context import Context
from control_plane.errors import SlipwayError
from control_plane.instances import billing, repository
from control_plane.instances.change import RECONCILE
from control_plane.instances.engine_probe import Probe, probe_engine
from control_plane.instances.lifecycle import Phase, transition
from control_plane.instances.reconcilers import (
    downloading,
    failed,
    provisioning,
    requested,
    running,
    starting,
    stopping,
    terminating,
)
from control_plane.instances.reconcilers.situation import Outcome, Situation, fail, try_again
from control_plane.instances.tables import Instance

logger = logging.getLogger(__name__)

ACTOR = "system:reconciler"
#: Longer than any step (their network calls have timeouts of seconds), short enough to wait for after a crash.
LEASE = timedelta(seconds=20)

STEPS: dict[str, Callable[[Situation], Outcome]] = {
    Phase.REQUESTED: requested.step,
    Phase.DOWNLOADING: downloading.step,
    Phase.PROVISIONING: provisioning.step,
    Phase.STARTING: starting.step,
    Phase.RUNNING: running.step,
    Phase.FAILED: failed.step,
    Phase.STOPPING: stopping.step,
    Phase.TERMINATING: terminating.step,
}


class _Claim(NamedTuple):
    token: UUID
    situation: Situation


class _LeaseLost(Exception):
    """Another worker took over; what this one found out is dropped."""


def reconcile(
    context: Context, instance_id: UUID, *, probe: Callable[[str, str], Probe] = probe_engine
) -> float | None:
    """Do the step that is due for an instance.

    :return: seconds until the next one; None when nothing was due, or is, or somebody else is at it.
    """
    claim = _claim(context, instance_id, probe)
    if claim is None:
        return None
    outcome = _step(claim.situation)
    try:
        return _apply(context, claim, outcome)
    except _LeaseLost:
        return None
    except SlipwayError as error:
        return _apply(context, claim, fail(error.detail, error.next_step))


def sweep(context: Context, *, limit: int = 200) -> list[UUID]:
    """Send a hint for every instance that is due and nobody's; returns their ids."""
    with context.database.reading() as session:
        due = repository.due(session, context.clock.now(), limit)
    for instance_id in due:
        context.hint(RECONCILE, instance_id)
    return due


def _claim(context: Context, instance_id: UUID, probe: Callable[[str, str], Probe]) -> _Claim | None:
    now = context.clock.now()
    with context.database.transaction() as session:
        if not repository.is_due(session, instance_id, now):
            return None
        token = leases.claim(session, Instance, instance_id, now=now, lease=LEASE)
        if token is None:
            return None
        loaded = repository.load(session, instance_id)
    return _Claim(token, Situation(context, loaded.instance, tuple(loaded.replicas), loaded.download, probe))


def _step(situation: Situation) -> Outcome:
    step = STEPS.get(situation.instance.phase)
    if step is None:
        return Outcome(situation.instance.reason, situation.instance.next_step, look_again_in_s=None)
    try:
        return step(situation)
    except Exception as error:
        # A step's own errors are outcomes; this one is our bug. The instance must say so and not stand still.
        logger.exception("instance %s: the %s step failed", situation.instance.id, situation.instance.phase)
        return try_again(situation, f"internal error ({type(error).__name__})", "See the worker's log.")


def _apply(context: Context, claim: _Claim, outcome: Outcome) -> float | None:
    before = claim.situation.instance
    with context.database.transaction() as session:
        if not leases.release(session, Instance, before.id, claim.token):
            raise _LeaseLost
        row = repository.fresh(session, before.id)
        if (row.phase, row.since) != (before.phase, before.since):
            return 0.0  # the user moved it meanwhile; the next step begins from there
        now = context.clock.now()
        _write(session, row, outcome, now)
        if outcome.move_to is None:
            _stay(row, outcome, now)
        else:
            transition(
                session,
                context.clock,
                row,
                outcome.move_to,
                reason=outcome.reason,
                next_step=outcome.next_step,
                actor=ACTOR,
                next_attempt_at=outcome.next_attempt_at(now),
                **outcome.data,
            )
        session.add(row)
    return outcome.look_again_in_s


def _write(session: Session, row: Instance, outcome: Outcome, now: datetime) -> None:
    session.add_all(outcome.new_replicas)
    for replica_id, values in outcome.replicas.items():
        repository.update_replica(session, replica_id, values)
    if outcome.write is not None:
        outcome.write(session, row)
    if outcome.holds_hardware is True:
        billing.start(row, now)
    elif outcome.holds_hardware is False:
        billing.stop(row, now)


def _stay(row: Instance, outcome: Outcome, now: datetime) -> None:
    row.reason, row.next_step = outcome.reason[:2000], outcome.next_step
    row.attempts = row.attempts + 1 if outcome.attempt_failed else 0
    row.next_attempt_at = outcome.next_attempt_at(now)
