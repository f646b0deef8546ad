"""running: is every replica there, and of the present generation? When none is left, back to provisioning."""

from __future__ import annotations

from control_plane.errors import SlipwayError
from control_plane.instances.brake import NEXT_STEP
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.fleet import Notice
from control_plane.instances.reconcilers.situation import Outcome, Situation
from control_plane.instances.reconcilers.tend import Tended, tend

#: While replicas come and go …
ROLL_LOOK_EVERY_S = 1.0
#: … while anything is wrong, and after every change …
LOOK_EVERY_S = 2.0
#: … then less and less: the gateway tells when an engine refuses a request.
STEADY_S = 15.0
#: A dozen looks in the first minute, in which most that goes wrong does, and then one every fifteen seconds.
_AGE_PER_S = 4.0


def step(situation: Situation) -> Outcome:
    """Look at every replica that runs; start those that wait for it; bring a roll on."""
    try:
        tended = tend(situation)
    except SlipwayError as error:
        # The engines go on without us; not knowing is no reason to touch them.
        return Outcome(f"state unknown: {error.detail}", error.next_step, look_again_in_s=LOOK_EVERY_S)
    if not tended.started or (tended.crashes and not tended.ready):
        return tended.down()
    return answering(tended)


def answering(tended: Tended, *, move_to: Phase | None = None) -> Outcome:
    """The outcome for an instance that has engines."""
    return tended.outcome(_notice(tended), look_again_in_s=_pause_s(tended), move_to=move_to)


def _notice(tended: Tended) -> Notice:
    if tended.held_back:
        return Notice(tended.held_back, NEXT_STEP)
    words = tended.words()
    if tended.plan.rolling:
        done = sum(r.ready and r.generation == tended.situation.instance.generation for r in tended.after)
        wanted = tended.situation.instance.replica_count
        progress = f"answering requests; {done} of {wanted} engines are replaced"
        return Notice(f"{progress}; {words.reason}", words.next_step) if words else Notice(progress)
    return words or Notice("answering requests")


def _pause_s(tended: Tended) -> float:
    if tended.plan.rolling or tended.leaving or tended.gone:
        return ROLL_LOOK_EVERY_S
    is_steady = (
        tended.situation.instance.phase == Phase.RUNNING
        and not (tended.crashes or tended.troubles)
        and all(replica.ready and replica.condition is None for replica in tended.after)
    )
    if not is_steady:
        return LOOK_EVERY_S
    return min(STEADY_S, max(LOOK_EVERY_S, tended.situation.seconds_in_phase() / _AGE_PER_S))
