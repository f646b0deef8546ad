"""What can be done to an instance in its present phase: the buttons on its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from control_plane.accounts.principal import Principal
from control_plane.context import Context
from control_plane.instances import service
from control_plane.instances.lifecycle import LEGAL_MOVES, Phase
from control_plane.instances.schemas import InstanceView


class Action(NamedTuple):
    """A button. ``verb`` is also the last part of the URL that it posts to."""

    name: str
    run: Callable[[Context, Principal, UUID], InstanceView]

    @property
    def verb(self) -> str:
        """``stop`` for *Stop*."""
        return self.name.lower()


STOP = Action("Stop", service.stop)
START = Action("Start", service.start)
RESTART = Action("Restart", service.restart)


def actions_for(instance: InstanceView) -> list[Action]:
    """The buttons that make sense now, besides *Terminate*."""
    moves = _moves(instance)
    if Phase.REQUESTED in moves:
        return [START]
    if instance.phase in {Phase.RUNNING, Phase.SLEEPING}:
        return [STOP, RESTART]
    return [STOP] if Phase.STOPPING in moves else []


def can_terminate(instance: InstanceView) -> bool:
    """Whether it is not gone, or going, already."""
    return Phase.TERMINATING in _moves(instance)


def _moves(instance: InstanceView) -> frozenset[Phase]:
    # A phase that a newer version wrote has no moves that we know of.
    return LEGAL_MOVES[Phase(instance.phase)] if instance.phase in set(Phase) else frozenset()
