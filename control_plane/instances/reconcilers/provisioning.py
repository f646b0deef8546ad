"""provisioning ─► starting: rows first, then the provider, so that nothing runs that the database does not know."""

from __future__ import annotations

from control_plane.errors import SlipwayError, Unavailable
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.situation import Outcome, Situation, fail, try_again
from control_plane.instances.reconcilers.start import start
from control_plane.instances.replicas import missing_replicas
from control_plane.instances.tables import Replica
from control_plane.providers.base import Weights

_LOOK_EVERY_S = 0.3


def step(situation: Situation) -> Outcome:
    """Start every replica that is not started and may be."""
    instance = situation.instance
    missing = missing_replicas(instance, situation.replicas, instance.provider, situation.now)
    if missing:
        return Outcome("starting the engine", new_replicas=tuple(missing))
    try:
        held = situation.weights()
        if held is None:
            return fail("the weights are not there any more", "Start again: they are downloaded anew.")
        return _start_due(situation, held)
    except Unavailable as error:
        return try_again(situation, error.detail, error.next_step)
    except SlipwayError as error:
        return fail(error.detail, error.next_step)


def _start_due(situation: Situation, weights: Weights) -> Outcome:
    """An error in the middle loses nothing: what was started before it is found by its boot token."""
    unstarted = [replica for replica in situation.replicas if replica.started_at is None]
    due = [replica for replica in unstarted if _pause_s(situation, replica) <= 0]
    starts = {replica.id: start(situation, replica, weights) for replica in due}
    values = {replica_id: started.values for replica_id, started in starts.items()}
    waits = [started.waiting_for for started in starts.values() if started.waiting_for]
    if waits:
        return Outcome(f"waiting for {waits[0]}", look_again_in_s=_LOOK_EVERY_S, replicas=values, holds_hardware=True)
    if len(due) < len(unstarted):
        # The reason that came with the move to this phase says what happened and when it goes on.
        pause = min(_pause_s(situation, replica) for replica in unstarted if replica not in due)
        return Outcome(situation.instance.reason, situation.instance.next_step, look_again_in_s=pause, replicas=values)
    return Outcome("the engine is starting", move_to=Phase.STARTING, replicas=values, holds_hardware=True)


def _pause_s(situation: Situation, replica: Replica) -> float:
    return (replica.restart_at - situation.now).total_seconds() if replica.restart_at else 0.0
