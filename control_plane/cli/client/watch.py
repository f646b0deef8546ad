"""Waiting for an instance, and showing how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from control_plane.cli.client.api import Api, Json
from control_plane.cli.client.output import say
from control_plane.cli.client.patience import Patience
from control_plane.cli.client.text import duration, printable, size
from control_plane.cli.exit_codes import TimedOut
from control_plane.errors import Conflict, SlipwayError, Unavailable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

POLL_INTERVAL_S = 0.5


class Goal(NamedTuple):
    """Phases that mean success, and those from which it cannot be reached without somebody doing something.

    :ivar generation: only engines of this generation of the instance count, and there must be as many as are wanted.
    """

    reached: frozenset[str]
    lost: frozenset[str]
    generation: int | None = None

    def is_reached(self, instance: Json) -> bool:
        """Whether ``instance`` is there."""
        if instance["phase"] not in self.reached:
            return False
        if self.generation is None:
            return True
        fresh = [replica["generation"] == self.generation and replica["ready"] for replica in instance["replicas"]]
        return all(fresh) and len(fresh) == instance["replica_count"]

    def is_lost(self, instance: Json) -> bool:
        """Whether ``instance`` cannot come there by itself."""
        stuck = any(
            replica["given_up"] and replica["generation"] == self.generation for replica in instance["replicas"]
        )
        return instance["phase"] in self.lost or stuck


RUNNING = Goal(
    frozenset({"running", "sleeping"}), frozenset({"failed", "stopping", "stopped", "terminating", "terminated"})
)
STOPPED = Goal(frozenset({"stopped"}), frozenset({"terminating", "terminated"}))
TERMINATED = Goal(frozenset({"terminated"}), frozenset())


_FAILED = {"failed": "failed", "running": "runs, but is not renewed"}


class LaunchFailed(SlipwayError):
    """The instance ended in ``failed``, or its new engines do not come up; the detail is its own reason."""

    code = "launch_failed"


class Display(Protocol):
    """Shows an instance again and again."""

    def show(self, instance: Json) -> None:
        """The instance as it is now."""
        ...


def wait_for(
    api: Api,
    instance: Json,
    goal: Goal,
    display: Display,
    *,
    timeout_s: float | None = None,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Json:
    """Poll ``instance`` until it reaches ``goal``; a server that goes away for a while is waited for.

    :return: the instance as it is then.
    :raises LaunchFailed: it failed.
    :raises Conflict: somebody else stopped or ended it.
    :raises TimedOut: after ``timeout_s`` seconds.
    """
    started, patience = now(), Patience(now)
    while True:
        display.show(instance)
        phase = instance["phase"]
        if goal.is_reached(instance):
            return instance
        if goal.is_lost(instance):
            raise _lost(instance)
        if timeout_s is not None and now() - started >= timeout_s:
            raise TimedOut(
                f"{instance['name']} is still {phase} after {duration(timeout_s)}: {instance['reason']}",
                f"It goes on by itself; look with 'slipway show {instance['name']}'.",
            )
        sleep(POLL_INTERVAL_S)
        try:
            instance = api.get(f"/instances/{instance['id']}")
            patience.answered()
        except Unavailable as error:
            patience.excuse(error)


def _lost(instance: Json) -> SlipwayError:
    if instance["phase"] in {"failed", "running"}:  # running: its new engines do not come up, the old ones serve on
        return LaunchFailed(
            f"{instance['name']} {_FAILED[instance['phase']]}: {instance['reason']}",
            instance["next_step"] or f"See 'slipway logs {instance['name']}'.",
        )
    return Conflict(
        f"{instance['name']} is {instance['phase']}: {instance['reason']}",
        f"Look with 'slipway show {instance['name']}'.",
    )


class Quiet:
    """Shows nothing: the result is enough (``--json``)."""

    def show(self, instance: Json) -> None:
        """Nothing."""


class Lines:
    """For logs and pipes: a line when the phase changes, for each tenth of a download, and for each engine replaced."""

    def __init__(self) -> None:
        self._said: tuple[str | None, ...] | None = None

    def show(self, instance: Json) -> None:
        """Say what is new."""
        download = instance["download"] if instance["phase"] == "downloading" else None
        tenths = str(int(10 * _fraction(download))) if download else None
        # While it runs there is only something to wait for when its engines are replaced: its reason says how far.
        renewal = instance["reason"] if instance["phase"] == "running" else None
        news = (instance["phase"], tenths, _trouble(download), renewal)
        if news == self._said:
            return
        self._said = news
        say(f"{instance['phase']}: {download_text(download) if download else instance['reason']}")


class Bar:
    """For a terminal: one line that is redrawn, with phase, bar, bytes, rate and time left."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._progress: Progress
        self._task: TaskID

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._progress = self._stack.enter_context(
            Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=28),
                TextColumn("{task.fields[detail]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
        )
        self._task = self._progress.add_task("", total=None, detail="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def show(self, instance: Json) -> None:
        """Redraw."""
        download = instance["download"] if instance["phase"] == "downloading" else None
        self._progress.update(
            self._task,
            description=instance["phase"],
            completed=_fraction(download) if download else 0,
            total=1 if download and download["bytes_total"] else None,
            detail=printable(download_text(download) if download else instance["reason"]),
        )


def download_text(download: Json) -> str:
    """``1.2 GB of 4.0 GB, 35 MB/s, 1 min 20 s left``, or the reason why it does not move."""
    parts = [f"{size(download['bytes_done'])} of {size(download['bytes_total'])}"]
    if download["reason"]:
        parts.append(download["reason"])
    else:
        parts.append(f"{size(download['bytes_per_s'])}/s")
        if download["eta_s"] is not None:
            parts.append(f"{duration(download['eta_s'])} left")
    return ", ".join(parts)


def _trouble(download: Json | None) -> str | None:
    """What keeps a download from moving; how long it has not moved, which grows all the time, left out."""
    if download is None:
        return None
    return "stalled" if download["stalled"] else download["reason"]


def _fraction(download: Json) -> float:
    total = download["bytes_total"]
    return download["bytes_done"] / total if total else 0.0


def show_progress(api: Api, instance: Json, goal: Goal, *, as_json: bool, timeout_s: float | None = None) -> Json:
    """:func:`wait_for` with the display that suits where standard error goes."""
    with ExitStack() as stack:
        display: Display
        if as_json:
            display = Quiet()
        elif sys.stderr.isatty():
            display = stack.enter_context(Bar())
        else:
            display = Lines()
        try:
            return wait_for(api, instance, goal, display, timeout_s=timeout_s)
        except KeyboardInterrupt:
            stack.close()
            say(f"{instance['name']} goes on without this command; see 'slipway show {instance['name']}'")
            raise
