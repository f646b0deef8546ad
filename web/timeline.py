"""How an instance came to be where it is: the phases of its latest run, how long each took, what is still to come.

::

    requested 1 s ─ downloading 40 s ─ provisioning 2 s ─ starting (12 s so far, why) ─ running
    └──────────── past: from the audit trail ─────────┘   └──── the instance ─────┘   └ ahead ┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from control_plane.instances.lifecycle import Phase
from control_plane.instances.schemas import EventView, InstanceView

#: The way of a launch that meets no obstacle.
_PATH = [Phase.REQUESTED, Phase.DOWNLOADING, Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING]
#: Phases that nothing follows unless somebody asks for it.
_RESTING = {Phase.RUNNING, Phase.SLEEPING, Phase.FAILED, Phase.STOPPED, Phase.TERMINATED}


class When(StrEnum):
    """Where a step lies in time."""

    PAST = "past"
    PRESENT = "present"
    AHEAD = "ahead"


@dataclass(frozen=True)
class Step:
    """One phase of the run. ``seconds`` is known for the past only, ``since`` for past and present."""

    phase: str
    when: When
    since: datetime | None = None
    seconds: float | None = None
    reason: str | None = None

    @property
    def is_resting(self) -> bool:
        """Whether it lasts until somebody wants something else."""
        return self.phase in _RESTING


def run_of(instance: InstanceView, events: Sequence[EventView]) -> list[Step]:
    """The steps of the latest run: from the last request, or the last restart, to where a launch ends.

    :param events: of this instance, oldest first; the action of those that move it ends with the phase moved to.
    """
    moves = [event for event in events if _to(event) in set(Phase)]
    start = max((i for i, move in enumerate(moves) if _begins_run(move)), default=0)
    moves = moves[start:]
    past = [
        Step(_to(move), When.PAST, move.at, (following.at - move.at).total_seconds())
        for move, following in pairwise(moves)
    ]
    present = Step(str(instance.phase), When.PRESENT, instance.since, reason=instance.reason)
    return [*past, present, *_ahead(instance)]


def _begins_run(move: EventView) -> bool:
    return _to(move) == Phase.REQUESTED or move.data.get("from") == Phase.RUNNING


def _to(event: EventView) -> str:
    return event.action.removeprefix("instance.")


def _ahead(instance: InstanceView) -> list[Step]:
    if instance.phase not in _PATH:
        return []
    rest = _PATH[_PATH.index(Phase(instance.phase)) + 1 :]
    needs_download = instance.download is not None or not instance.model.startswith("slipway/")
    return [Step(phase, When.AHEAD) for phase in rest if needs_download or phase != Phase.DOWNLOADING]
