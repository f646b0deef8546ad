"""stopping ─► stopped. Weights and logs stay."""

from __future__ import annotations

from control_plane.errors import SlipwayError
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.release import pause_s, release
from control_plane.instances.reconcilers.situation import Outcome, Situation, try_again


def step(situation: Situation) -> Outcome:
    """Drain and end every replica."""
    try:
        released = release(situation)
    except SlipwayError as error:
        return try_again(situation, error.detail, error.next_step)
    if released.left:
        return Outcome(released.progress, look_again_in_s=pause_s(situation), replicas=released.values)
    return Outcome(
        "stopped; weights and logs are kept",
        move_to=Phase.STOPPED,
        look_again_in_s=None,
        replicas=released.values,
        gone=released.gone,
    )
