"""terminating ─► terminated, and never sooner than the provider has said "absent" twice."""

from __future__ import annotations

from sqlmodel import Session

from control_plane.errors import SlipwayError
from control_plane.instances.lifecycle import Phase
from control_plane.instances.reconcilers.release import pause_s, release
from control_plane.instances.reconcilers.situation import Outcome, Situation, try_again
from control_plane.instances.tables import Instance


def step(situation: Situation) -> Outcome:
    """Drain and end every replica; then the instance's name is free again."""
    try:
        released = release(situation)
    except SlipwayError as error:
        return try_again(situation, error.detail, error.next_step)
    if released.left:
        return Outcome(released.progress, look_again_in_s=pause_s(situation), replicas=released.values)
    now = situation.now

    def note_end(_session: Session, row: Instance) -> None:
        row.terminated_at = now

    return Outcome(
        "terminated",
        move_to=Phase.TERMINATED,
        look_again_in_s=None,
        replicas=released.values,
        gone=released.gone,
        write=note_end,
    )
