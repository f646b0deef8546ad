"""Processes that can be stopped, overtaken and killed wherever a real one can: a thread each, one at a time.

Code under test calls :func:`reach` (through the providers and databases of ``tests/support/lifecycle.py``) wherever
the outside world can notice it. A :class:`Process` runs until it has passed so many points, and then stands still
until it is resumed or killed. Only one of them, or their maker, runs at any time, so every history can be repeated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_GIVE_UP_S = 60.0


class Killed(BaseException):
    """The process ends here: nothing of it runs any more."""


class Process:
    """``work`` in a thread of its own, driven point by point."""

    def __init__(self, title: str, work: Callable[[], object]) -> None:
        self.title = title
        self.error: BaseException | None = None
        self.at = "its beginning"
        self._work = work
        self._budget = 0
        self._killed = False
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=title, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has ended, one way or the other."""
        return not self._thread.is_alive()

    def resume(self, points: int) -> None:
        """Let it pass ``points`` points, or end; an error of the code under test is raised here."""
        if not self.done:
            self._budget = points
            self._switch()
        if self.error is not None and not isinstance(self.error, Killed):
            raise self.error

    def kill(self) -> None:
        """End it where it stands."""
        if not self.done:
            self._killed = True
            self._switch()

    def reach(self, where: str) -> None:
        """The process is at a point: go on, stand still, or die."""
        self.at = where
        self._budget -= 1
        if self._budget < 0 and not self._killed:
            self._stands.release()
            self._go.acquire()
        if self._killed:
            raise Killed(where)

    def _switch(self) -> None:
        self._go.release()
        if not self._stands.acquire(timeout=_GIVE_UP_S):
            raise TimeoutError(f"{self.title} hangs after {self.at}")
        if self.error is not None or self.at == "its end":
            self._thread.join()

    def _run(self) -> None:
        _local.process = self
        self._go.acquire()
        try:
            if not self._killed:
                self._work()
        except BaseException as error:
            self.error = error
        self.at = "its end"
        self._stands.release()


_local = threading.local()


def reach(where: str) -> None:
    """A point of the process that runs now; nothing where no :class:`Process` does."""
    process: Process | None = getattr(_local, "process", None)
    if process is not None:
        process.reach(where)
