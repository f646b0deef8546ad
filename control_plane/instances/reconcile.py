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

from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.errors import SlipwayError
from control_plane.instances import billing, repository
from control_plane.instances.change import RECONCILE
from control_plane.instances.engine_probe import Probe, probe_engine
from control_plane.instances.lease_keeper import kept
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
from control_plane.instances.reconcilers.situation import Event, Outcome, Situation, fail, try_again
from control_plane.instances.replicas import merged
from control_plane.instances.tables import Instance, Replica

logger = logging.getLogger(__name__)

ACTOR = "system:reconciler"
#: Short enough to wait for after a crash; a step that takes longer keeps it.
LEASE = timedelta(seconds=20)

#: Between two looks at a phase that this version does not know.
UNKNOWN_PAUSE_S = 30.0

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
    with kept(context, instance_id, claim.token, LEASE):
        outcome = _step(claim.situation)
    try:
        return _apply(context, claim, outcome)
    except _LeaseLost:
        return None
    except SlipwayError as error:
        return _apply(context, claim, fail(error.detail, error.next_step))


def sweep(context: Context, *, at_most: int | None = None) -> list[UUID]:
    """Send a hint for every instance that is due and nobody's; returns their ids.

    :param at_most: only for so many, those that have waited longest.
    """
    with context.database.reading() as session:
        due = repository.due(session, context.clock.now(), LEASE, at_most)
    for instance_id in due:
        context.hint(RECONCILE, instance_id)
    return due


def _claim(context: Context, instance_id: UUID, probe: Callable[[str, str], Probe]) -> _Claim | None:
    with context.database.transaction() as session:
        loaded = repository.claim(session, instance_id, now=context.clock.now(), lease=LEASE)
    if loaded is None or loaded.instance.lease_token is None:
        return None
    situation = Situation(context, loaded.instance, tuple(loaded.replicas), loaded.download, probe)
    return _Claim(loaded.instance.lease_token, situation)


def _step(situation: Situation) -> Outcome:
    step = STEPS.get(situation.instance.phase)
    if step is None:
        # A newer version knows what this phase means: leave it as it is, and to the worker that can go on with it.
        return Outcome(situation.instance.reason, situation.instance.next_step, look_again_in_s=UNKNOWN_PAUSE_S)
    try:
        return step(situation)
    except Exception as error:
        # A step's own errors are outcomes; this one is our bug. The instance must say so and not stand still.
        logger.exception("instance %s: the %s step failed", situation.instance.id, situation.instance.phase)
        return try_again(situation, f"internal error ({type(error).__name__})", "See the worker's log.")


def _apply(context: Context, claim: _Claim, outcome: Outcome) -> float | None:
    before = claim.situation.instance
    with context.database.transaction() as session:
        row = repository.release(session, before.id, claim.token)
        if row is None:
            raise _LeaseLost
        if (row.phase, row.since) != (before.phase, before.since):
            return 0.0  # the user moved it meanwhile; the next step begins from there
        now = context.clock.now()
        look_again_in_s = outcome.look_again_in_s
        if row.next_attempt_at != before.next_attempt_at:
            look_again_in_s = 0.0  # somebody wants it looked at since: this step may have been too early
        next_attempt_at = None if look_again_in_s is None else now + timedelta(seconds=look_again_in_s)
        _write(session, context, claim.situation.replicas, row, outcome, now)
        if outcome.move_to is None:
            _stay(row, outcome, next_attempt_at)
        else:
            transition(
                session,
                context.clock,
                row,
                outcome.move_to,
                reason=outcome.reason,
                next_step=outcome.next_step,
                actor=ACTOR,
                next_attempt_at=next_attempt_at,
                **outcome.data,
            )
        session.add(row)
    return look_again_in_s


def _write(
    session: Session, context: Context, replicas: tuple[Replica, ...], row: Instance, outcome: Outcome, now: datetime
) -> None:
    staying = [replica for replica in replicas if replica.id not in outcome.gone]
    after = [merged(replica, outcome.replicas.get(replica.id)) for replica in staying]
    billing.settle(row, billing.held(replicas), billing.held(after), now)
    session.add_all(outcome.new_replicas)
    for replica in staying:
        if replica.id in outcome.replicas:
            # What was found out about one boot says nothing about the next, if somebody has begun that meanwhile.
            repository.update_replica(session, replica.id, outcome.replicas[replica.id], boot_token=replica.boot_token)
    repository.delete_replicas(session, outcome.gone)
    # The reaper reads these: what comes back under such a name is over.
    removed = [_removed(replica) for replica in replicas if replica.id in outcome.gone]
    for event in (*removed, *outcome.events):
        audit.record(
            session,
            context.clock,
            team_id=row.team_id,
            actor=ACTOR,
            action=f"instance.{event.action}",
            object_type="instance",
            object_id=row.id,
            message=event.message[:2000],
            **event.data,
        )
    if outcome.write is not None:
        outcome.write(session, row)


def _removed(replica: Replica) -> Event:
    message = f"replica {replica.ordinal} has finished its requests and is gone"
    return Event("replica_removed", message, {"name": replica.resource_name})


def _stay(row: Instance, outcome: Outcome, next_attempt_at: datetime | None) -> None:
    row.reason, row.next_step = outcome.reason[:2000], outcome.next_step
    row.attempts = row.attempts + 1 if outcome.attempt_failed else 0
    row.next_attempt_at = next_attempt_at
