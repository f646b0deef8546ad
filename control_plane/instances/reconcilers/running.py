"""running: is every replica there? One that ended is started again; when all have, it is back to provisioning."""

from __future__ import annotations

from control_plane.errors import SlipwayError
from control_plane.instances.reconcilers.crashes import down
from control_plane.instances.reconcilers.look import Look, look, row_values
from control_plane.instances.reconcilers.situation import Outcome, Situation
from control_plane.instances.reconcilers.start import start
from control_plane.instances.replicas import ReplicaValues
from control_plane.instances.tables import Replica

LOOK_EVERY_S = 2.0


def step(situation: Situation) -> Outcome:
    """Look at every replica that runs; start again those that wait for it."""
    try:
        looks = [look(situation, replica) for replica in situation.replicas if replica.started_at]
    except SlipwayError as error:
        # The engines go on without us; not knowing is no reason to touch them.
        return Outcome(f"state unknown: {error.detail}", error.next_step, look_again_in_s=LOOK_EVERY_S)
    values = row_values(looks)
    crashes = [seen.crash for seen in looks if seen.crash]
    if crashes and not any(seen.ready for seen in looks):
        return down(crashes[0], values)
    for replica in situation.replicas:
        if replica.started_at is None and (replica.restart_at is None or replica.restart_at <= situation.now):
            values[replica.id] = _start_again(situation, replica)
    return Outcome(_reason(looks), look_again_in_s=LOOK_EVERY_S, replicas=values)


def _start_again(situation: Situation, replica: Replica) -> ReplicaValues:
    """One replica of several: what goes wrong here is its condition, not the instance's end."""
    try:
        held = situation.weights()
        if held is None:
            return {"condition": "the weights are not there any more"}
        return start(situation, replica, held).values
    except SlipwayError as error:
        return {"condition": error.detail[:500]}


def _reason(looks: list[Look]) -> str:
    for seen in looks:
        if words := seen.crash.reason if seen.crash else seen.condition:
            return f"replica {seen.replica.ordinal}: {words}"
    return "answering requests"
