"""starting ─► running when every replica answers; back to provisioning, or failed, when one ends."""

from __future__ import annotations

from control_plane.errors import Unavailable
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers import running
from control_plane.instances.reconcilers.crashes import down
from control_plane.instances.reconcilers.look import look, row_values
from control_plane.instances.reconcilers.situation import Outcome, Situation, try_again

#: At first small models are ready any moment; later a look a second is plenty.
_EAGER_S = 15.0


def step(situation: Situation) -> Outcome:
    """Look at every replica."""
    try:
        looks = [look(situation, replica) for replica in situation.replicas]
    except Unavailable as error:
        return try_again(situation, error.detail, error.next_step)
    values = row_values(looks)
    crashes = sorted((seen.crash for seen in looks if seen.crash), key=lambda crash: not crash.final)
    if crashes:
        return down(crashes[0], values)
    if all(seen.ready for seen in looks):
        return Outcome(
            "answering requests", move_to=Phase.RUNNING, look_again_in_s=running.LOOK_EVERY_S, replicas=values
        )
    words = next(seen.condition for seen in looks if not seen.ready)
    pause = 0.3 if situation.seconds_in_phase() < _EAGER_S else 1.0
    return Outcome(f"the engine is starting: {words}", look_again_in_s=pause, replicas=values)
