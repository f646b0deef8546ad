"""Where the time between process start and readiness goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving_image.engine.protocol import BootPhase


class BootTimeline:
    """Phases of a boot, in order.

    :param age: seconds since the process started.
    """

    def __init__(self, age: Callable[[], float]) -> None:
        self._age = age
        self.phases: list[BootPhase] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block as a phase; the time before the first one is the interpreter's own."""
        started = self._age()
        if not self.phases:
            self.phases.append(BootPhase("interpreter", started))
        yield
        self.phases.append(BootPhase(name, self._age() - started))

    def table(self) -> str:
        """The timeline, for a person."""
        rows = [f"  {phase.name:<20} {phase.seconds:6.2f} s" for phase in self.phases]
        return "boot timeline\n" + "\n".join([*rows, f"  {'ready after':<20} {self._age():6.2f} s"])
