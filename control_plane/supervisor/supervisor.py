"""Several processes, started in order, kept running, stopped in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from control_plane.supervisor.child import Child, ChildSpec, ChildState
from control_plane.supervisor.log_file import LogFile

_CAP_LOGS_EVERY_S = 60.0


@dataclass(frozen=True)
class Plan:
    """What to run. The members of a stage start together; the next stage waits until all of them are ready.

    ``stop`` names the order of the end, stage by stage.
    """

    start: Sequence[Sequence[ChildSpec]]
    stop: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ProcessReport:
    """One process as ``slipway status`` shows it."""

    name: str
    state: ChildState
    pid: int | None
    restarts: int
    last_exit_code: int | None
    log: str


class Supervisor:
    """Runs a :class:`Plan`. :param report: gets a line for a person when something happens that matters."""

    def __init__(
        self,
        plan: Plan,
        log_dir: Path,
        *,
        report: Callable[[str], None],
        changed: Callable[[list[ProcessReport]], None],
    ) -> None:
        self._plan = plan
        self._changed = changed
        self.children = {
            spec.name: Child(
                spec, LogFile(log_dir / f"{spec.name}.log"), report=report, changed=lambda: changed(self.processes())
            )
            for stage in plan.start
            for spec in stage
        }

    def processes(self) -> list[ProcessReport]:
        """Each process, as it is now."""
        return [
            ProcessReport(name, child.state, child.pid, child.restarts, child.last_exit_code, str(child.log.path))
            for name, child in self.children.items()
        ]

    async def start(self, deadline_s: float) -> None:
        """Start everything, stage by stage.

        :param deadline_s: seconds that each stage may take.
        :raises ChildFailed: a process does not become ready; the others keep running until :meth:`stop`.
        """
        for stage in self._plan.start:
            await asyncio.gather(*(self.children[spec.name].start(deadline_s) for spec in stage))

    async def stop(self) -> None:
        """Stop everything, stage by stage; returns when all have ended."""
        for stage in self._plan.stop:
            await asyncio.gather(*(self.children[name].stop() for name in stage if name in self.children))

    def kill(self) -> None:
        """SIGKILL to all, now."""
        for child in self.children.values():
            child.kill()

    async def cap_logs(self) -> None:
        """Keep every log file below its limit, for ever."""
        while True:
            await asyncio.sleep(_CAP_LOGS_EVERY_S)
            for child in self.children.values():
                await asyncio.to_thread(child.log.cap)
