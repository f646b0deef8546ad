"""provisioning ─► starting: rows first, then the provider, so that nothing runs that the database does not know."""

from __future__ import annotations

from dataclasses import replace

from sqlmodel import Session

from control_plane.downloads import service as downloads
from control_plane.errors import SlipwayError, Unavailable
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.fleet import Notice
from control_plane.instances.reconcilers.situation import Outcome, Situation, fail, try_again
from control_plane.instances.reconcilers.starting import SOONEST_S
from control_plane.instances.reconcilers.tend import Tended, tend
from control_plane.instances.replicas import is_doomed
from control_plane.instances.tables import Instance
from control_plane.providers.base import WeightsMissing

#: Hardware that is free is there in a moment; a queue moves slowly.
_SOON_S, _QUEUED_S = 0.3, 5.0


def step(situation: Situation) -> Outcome:
    """Start every replica that is not started and may be, until one has an engine process."""
    try:
        tended = tend(situation) if situation.weights() is not None else None
    except Unavailable as error:
        return try_again(situation, error.detail, error.next_step)
    except SlipwayError as error:
        return fail(error.detail, error.next_step)
    if tended is None:
        return fail("the weights are not there any more", "Start again: they are downloaded anew.")
    if tended.started:
        return tended.outcome(Notice("the engine is starting"), look_again_in_s=SOONEST_S, move_to=Phase.STARTING)
    if tended.troubles and not tended.waits:
        return _not_started(tended)
    return _waiting(tended)


def _waiting(tended: Tended) -> Outcome:
    """For hardware, for the end of an earlier boot, for the end of a pause: or for nothing, when no restart helps."""
    instance = tended.situation.instance
    if tended.after and all(is_doomed(replica) for replica in tended.after):
        return tended.down()
    if tended.waits:
        pause = min(_QUEUED_S, max(_SOON_S, tended.situation.seconds_in_phase() / 10))
        return tended.outcome(Notice(tended.waits[0]), look_again_in_s=pause)
    if tended.plan.new:
        return tended.outcome(Notice("starting the engine"), look_again_in_s=0.0)
    # The reason that came with the move to this phase says what happened and when it goes on.
    return tended.outcome(Notice(instance.reason, instance.next_step), look_again_in_s=tended.pause_s)


def _not_started(tended: Tended) -> Outcome:
    """No replica could be started: refused for good, unless one may still be tried."""
    missing = next((error for error in tended.troubles if isinstance(error, WeightsMissing)), None)
    if missing is not None:
        return _without_weights(tended, missing)
    error = next((error for error in tended.troubles if isinstance(error, Unavailable)), tended.troubles[0])
    if isinstance(error, Unavailable):
        return try_again(tended.situation, error.detail, error.next_step, tended)
    return fail(error.detail, error.next_step, tended)


def _without_weights(tended: Tended, error: WeightsMissing) -> Outcome:
    """What an agent once brought is gone: whoever starts next fetches it anew."""
    context = tended.situation.context

    def forget(session: Session, row: Instance) -> None:
        if row.download_id is not None:
            downloads.note_vanished(session, context, row.download_id)

    return replace(fail(error.detail, error.next_step, tended), write=forget)
