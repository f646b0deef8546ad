"""Ends an engine that has work but gets nowhere, and leaves the stacks of all its threads in the log.

::

    main thread    step ── step ── step ─────────── stuck ───────────────────────────────►
    watchdog         ·      ·       ·      ·       ·       ·    stacks, then exit status 75
    without progress 0      0       0      1 s     2 s …   timeout

It is a thread of its own, because the one that is stuck cannot help itself; and it touches no socket, because those
belong to the main thread: the server hears of it by the process's end.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from serving_image.engine.process import STALLED_STATUS
from serving_image.engine.protocol import EngineReady

logger = logging.getLogger(__name__)

#: Looks per timeout: a stall is noticed at most a tenth of it late.
_LOOKS = 10
_MAX_INTERVAL = 1.0
_SHORTEST_TIMEOUT = 120.0
#: A fifth of what two cores without matrix units do, for neighbours that want them as well.
_SLOW_OPERATIONS_PER_SECOND = 25e9


def interval_of_looks(timeout: float) -> float:
    """Seconds between two looks at something that has this timeout."""
    return min(_MAX_INTERVAL, timeout / _LOOKS)


def default_stall_timeout(ready: EngineReady, max_step_tokens: int) -> float:
    """Seconds that no step of so many tokens takes, unless it is stuck.

    A small CPU needs minutes for 2,048 tokens of a model of several billion parameters: two operations for each, of
    which two cores without matrix units do 140 to 240 billion a second.
    """
    if ready.device != "cpu":
        return _SHORTEST_TIMEOUT
    return max(_SHORTEST_TIMEOUT, 2 * ready.parameters * max_step_tokens / _SLOW_OPERATIONS_PER_SECOND)


class Progress(Protocol):
    """Something that should get on, such as an :class:`~serving_image.engine.core.EngineCore`; read without a lock."""

    @property
    def has_work(self) -> bool: ...

    @property
    def last_progress(self) -> float:
        """A clock's reading that changes with all progress, and when there is work after there was none."""


class StallDetector:
    """How long something has had work without progress, in time during which this process itself ran.

    A look counts for at most two ``interval``: a process that was stopped, or a machine that slept, has a long time
    between two looks in which nothing could get on.
    """

    def __init__(self, progress: Progress, interval: float, now: float) -> None:
        self._progress = progress
        self._most_of_a_look = 2 * interval
        self._looked_at = now
        self._seen = progress.last_progress
        self._seconds = 0.0

    def look(self, now: float) -> float:
        """Seconds without progress, as of now; 0 when idle."""
        seen = self._progress.last_progress
        if seen != self._seen or not self._progress.has_work:
            self._seconds = 0.0
        else:
            self._seconds += min(now - self._looked_at, self._most_of_a_look)
        self._seen, self._looked_at = seen, now
        return self._seconds


@contextmanager
def watchdog(
    progress: Progress, timeout: float, describe: Callable[[], object], clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Within the block, end the process if it has work but no progress for ``timeout`` seconds.

    :param describe: called when that happens; what it returns is logged beside the stacks.
    """
    done = threading.Event()
    arguments = (progress, timeout, describe, clock, done)
    threading.Thread(target=_watch, args=arguments, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch(
    progress: Progress,
    timeout: float,
    describe: Callable[[], object],
    clock: Callable[[], float],
    done: threading.Event,
) -> None:
    interval = interval_of_looks(timeout)
    detector = StallDetector(progress, interval, clock())
    while not done.wait(interval):
        if detector.look(clock()) >= timeout:
            _give_up(timeout, describe)


def _give_up(timeout: float, describe: Callable[[], object]) -> None:
    logger.critical("stalled: there is work, but no step has ended for %g s; the stacks of all threads follow", timeout)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    try:
        logger.critical("the engine's state: %s", describe())
    except Exception:  # the state of a stuck engine may be half changed; the exit must not depend on it
        logger.exception("the engine's state cannot be read")
    sys.stderr.flush()
    # Not sys.exit: that ends this thread only, and the main thread would never come to any clean-up.
    os._exit(STALLED_STATUS)
