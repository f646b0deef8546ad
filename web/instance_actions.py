"""What can be done to an instance in its present phase: the buttons on its page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from uuid import UUID

from control_plane.accounts.principal import Principal
from control_plane.context import Context
from control_plane.instances import service
from control_plane.instances.lifecycle import LEGAL_MOVES, Phase
from control_plane.instances.schemas import InstanceView, RestartMode


class Action(NamedTuple):
    """A button: its words, the last part of the URL that it posts to, and what it does in a sentence."""

    name: str
    verb: str
    run: Callable[[Context, Principal, UUID], InstanceView]
    explained: str


STOP = Action("Stop", "stop", service.stop, "Lets running requests finish, then ends the engines.")
START = Action("Start", "start", service.start, "Brings it up again, from the weights that are already here.")
RESTART = Action(
    "Restart",
    "restart",
    partial(service.restart, mode=RestartMode.ROLLING),
    "Replaces the engines one after another: no request is dropped.",
)
REPLACE = Action(
    "Replace at once",
    "replace",
    partial(service.restart, mode=RestartMode.REPLACE),
    "Ends all engines, then starts new ones: requests fail until these are ready. Needs no room for one more.",
)


def actions_for(instance: InstanceView) -> list[Action]:
    """The buttons that make sense now, besides *Terminate*."""
    moves = _moves(instance)
    if Phase.REQUESTED in moves:
        return [START]
    if instance.phase in {Phase.RUNNING, Phase.SLEEPING}:
        return [STOP, RESTART, REPLACE]
    return [STOP] if Phase.STOPPING in moves else []


def can_terminate(instance: InstanceView) -> bool:
    """Whether it is not gone, or going, already."""
    return Phase.TERMINATING in _moves(instance)


def _moves(instance: InstanceView) -> frozenset[Phase]:
    # A phase that a newer version wrote has no moves that we know of.
    return LEGAL_MOVES[Phase(instance.phase)] if instance.phase in set(Phase) else frozenset()
