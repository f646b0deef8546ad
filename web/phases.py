"""How a state looks: a colour, a shape and always a word."""

from __future__ import annotations

from typing import NamedTuple

from control_plane.downloads.tables import DownloadState
from control_plane.instances.lifecycle import Phase
from control_plane.processes.schemas import ProcessState
from control_plane.reaper.tables import OrphanState


class Look(NamedTuple):
    """``name`` picks the colour (a CSS class), ``shape`` is a character that differs even without colour."""

    name: str
    shape: str


RUNNING = Look("running", "●")
MOVING = Look("moving", "◐")
WAITING = Look("waiting", "○")
FAILED = Look("failed", "✕")
STOPPED = Look("stopped", "–")

_LOOKS: dict[str, Look] = {
    Phase.REQUESTED: WAITING,
    Phase.DOWNLOADING: MOVING,
    Phase.PROVISIONING: MOVING,
    Phase.STARTING: MOVING,
    Phase.RUNNING: RUNNING,
    Phase.SLEEPING: WAITING,
    Phase.FAILED: FAILED,
    Phase.STOPPING: MOVING,
    Phase.STOPPED: STOPPED,
    Phase.TERMINATING: MOVING,
    Phase.TERMINATED: STOPPED,
    DownloadState.QUEUED: WAITING,
    DownloadState.VERIFYING: MOVING,
    DownloadState.DONE: RUNNING,
    DownloadState.CANCELLED: STOPPED,
    OrphanState.LEFTOVER: WAITING,
    OrphanState.UNKNOWN: WAITING,
    OrphanState.DELETING: MOVING,
    ProcessState.ALIVE: RUNNING,
    ProcessState.IDLE: WAITING,
    ProcessState.SILENT: FAILED,
    ProcessState.ENDED: STOPPED,
}


def look(state: str) -> Look:
    """The look of a state, whatever it is a state of; one that a newer version wrote is shown as waiting."""
    return _LOOKS.get(state, WAITING)
