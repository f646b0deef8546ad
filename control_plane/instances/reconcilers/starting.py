"""starting ─► running when an engine answers; back to provisioning, or failed, when none is left."""

from __future__ import annotations

from control_plane.errors import SlipwayError
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers import running
from control_plane.instances.reconcilers.fleet import Notice
from control_plane.instances.reconcilers.situation import Outcome, Situation, try_again
from control_plane.instances.reconcilers.tend import tend

#: At first small models are ready any moment; later a look a second is plenty, and hundreds that load at once do not
#: keep the workers from everything else.
SOONEST_S, _LATEST_S = 0.5, 1.0
_AGE_PER_S = 3.0


def step(situation: Situation) -> Outcome:
    """Look after every replica; those that are not ready yet join when they are."""
    try:
        tended = tend(situation)
    except SlipwayError as error:
        return try_again(situation, error.detail, error.next_step)
    if tended.ready:
        return running.answering(tended, move_to=Phase.RUNNING)
    if not tended.started:
        return tended.down()
    words = tended.words() or Notice("loading")
    pause = min(_LATEST_S, max(SOONEST_S, situation.seconds_in_phase() / _AGE_PER_S))
    return tended.outcome(Notice(f"the engine is starting: {words.reason}", words.next_step), look_again_in_s=pause)
