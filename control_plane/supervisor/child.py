"""One process that is kept running.

::

    start() ─► starting ─► ready ──(ends)──► waiting ─► starting …
                  │          │                  │
                  └──────────┴──── stop() ──────┴─► stopped
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from control_plane.supervisor.backoff import Backoff
from control_plane.supervisor.log_file import LogFile

_POLL_S = 0.1
_PROBE_TIMEOUT_S = 5.0
_FATAL_EARLY_DEATHS = 3


@dataclass(frozen=True)
class ChildSpec:
    """What to run and how to tell that it works.

    ``ready`` is given the process's pid and answers whether it does its work; it may raise, which means no.
    ``stop_grace_s`` is how long it may take to end after SIGTERM before it gets SIGKILL.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    ready: Callable[[int], Awaitable[bool]]
    stop_grace_s: float = 10.0
    pass_fds: tuple[int, ...] = ()


class ChildState(StrEnum):
    """See the diagram at the top of the file."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"


class ChildFailed(Exception):
    """A process did not become ready. Carries what a person needs to see why."""

    def __init__(self, name: str, what: str, log: LogFile) -> None:
        super().__init__(f"{name} {what}")
        self.name = name
        self.what = what
        self.log = log


def describe_exit(code: int) -> str:
    """``killed by SIGKILL`` or ``exited with code 3``."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class Child:
    """Runs ``spec``, and runs it again when it ends, until :meth:`stop`. Belongs to the loop of the main thread."""

    def __init__(
        self,
        spec: ChildSpec,
        log: LogFile,
        *,
        report: Callable[[str], None],
        changed: Callable[[], None],
        backoff: Backoff | None = None,
    ) -> None:
        self.spec = spec
        self.log = log
        self.restarts = 0
        self.last_exit_code: int | None = None
        self._report = report
        self._changed = changed
        self._backoff = backoff or Backoff()
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._early_deaths = 0
        self._runner: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, if there is one."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def state(self) -> ChildState:
        """Derived from what is so."""
        if self._runner is None or self._runner.done():
            return ChildState.STOPPED
        if self._ready.is_set():
            return ChildState.READY
        return ChildState.STARTING if self.pid is not None else ChildState.WAITING

    async def start(self, deadline_s: float) -> None:
        """Start it and wait until it is ready.

        :raises ChildFailed: it ended several times before it was ready, or was not ready within ``deadline_s`` seconds.
        """
        self._runner = asyncio.create_task(self._keep_running(), name=f"keep {self.spec.name} running")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        while not self._ready.is_set():
            if self._runner.done():
                self._runner.result()  # a program that cannot even be started raises here
                raise ChildFailed(self.spec.name, "was stopped before it was ready", self.log)
            if self._early_deaths >= _FATAL_EARLY_DEATHS and self.last_exit_code is not None:
                raise ChildFailed(self.spec.name, f"does not start: {describe_exit(self.last_exit_code)}", self.log)
            if loop.time() > deadline:
                raise ChildFailed(self.spec.name, f"was not ready after {deadline_s:g} s", self.log)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), _POLL_S)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL to the whole process group after the grace period; returns when it has ended."""
        self._stopping.set()
        if self._runner is None:
            return
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self._runner}, timeout=self.spec.stop_grace_s)
        if not done:
            self.kill()
            await asyncio.wait({self._runner})
        self._changed()

    def kill(self) -> None:
        """SIGKILL to the whole process group, now; it is not started again."""
        self._stopping.set()
        if self.pid is not None:
            _kill_group(self.pid)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            process = self._process = await self._spawn()
            self._changed()
            if self._stopping.is_set():  # stop() came while there was nobody to signal
                self._signal(signal.SIGTERM)
            prober = asyncio.create_task(self._probe(process.pid))
            code = await process.wait()
            prober.cancel()
            _kill_group(process.pid)  # whatever it left in its group
            await self._after_exit(code, loop.time() - started)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self.log.cap()
        with self.log.opened() as output:
            # The kernel ends it when this thread ends. A session of its own keeps the terminal's Ctrl-C from it.
            return await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", *self.spec.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self.spec.environment),
                start_new_session=True,
                pass_fds=self.spec.pass_fds,
            )

    async def _probe(self, pid: int) -> None:
        while not self._ready.is_set():
            with suppress(Exception):
                if await asyncio.wait_for(self.spec.ready(pid), _PROBE_TIMEOUT_S):
                    self._early_deaths = 0
                    self._ready.set()
                    self._changed()
                    return
            await asyncio.sleep(_POLL_S)

    async def _after_exit(self, code: int, lived_s: float) -> None:
        if not self._ready.is_set():
            self._early_deaths += 1
        self._ready.clear()
        self.last_exit_code = code
        if self._stopping.is_set():
            return
        delay = self._backoff.after(lived_s)
        self.restarts += 1
        self._report(f"{self.spec.name} {describe_exit(code)}; starting it again in {delay:g} s (log: {self.log.path})")
        self._changed()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
