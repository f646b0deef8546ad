"""failed: nothing is held any longer. The reason of the failure stays until somebody starts the instance again."""

from __future__ import annotations

from control_plane.errors import SlipwayError
from control_plane.instances.reconcilers.release import pause_s, release
from control_plane.instances.reconcilers.situation import Outcome, Situation, backoff_s


def step(situation: Situation) -> Outcome:
    """Give back what is left."""
    instance = situation.instance
    try:
        released = release(situation)
    except SlipwayError:
        delay = backoff_s(instance.attempts + 1)
        return Outcome(instance.reason, instance.next_step, look_again_in_s=delay, attempt_failed=True)
    done = released.left == 0
    return Outcome(
        instance.reason,
        instance.next_step,
        look_again_in_s=None if done else pause_s(situation),
        replicas=released.values,
        gone=released.gone,
    )
