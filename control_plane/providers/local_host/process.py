"""One engine process: started, listened to, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from pathlib import Path

from control_plane.providers.base import ProviderError, ReplicaSpec, ReplicaState, ReplicaStatus
from control_plane.providers.local_host.command import engine_argv, engine_environment
from control_plane.providers.local_host.placement import Placement
from control_plane.providers.log_store import LogStore

_READ_SIZE = 1 << 16
#: Seconds to read on after an engine's death: its last words are what people need most.
_LAST_WORDS_S = 5.0


class ReplicaProcess:
    """A replica from its start until somebody has taken note of its end.

    ::

        start() ─► alive ──exit──► exit_code known, log complete ─► forgotten by the table
                     └─ stop(): SIGTERM, then SIGKILL to the whole process group
    """

    def __init__(
        self, spec: ReplicaSpec, placement: Placement, process: Process, reservation: socket.socket, log: LogStore
    ) -> None:
        self.spec = spec
        self.placement = placement
        self.exit_code: int | None = None
        self._process = process
        self._reservation = reservation
        self._log = log
        self._stopping: asyncio.Task[None] | None = None
        self._watching = asyncio.create_task(self._watch())

    @classmethod
    async def start(cls, spec: ReplicaSpec, placement: Placement, folder: Path, engine: Path) -> ReplicaProcess:
        """Start the engine; its key, readable by this user only, and its log lie in ``folder``.

        :raises ProviderError: it cannot be started like this.
        """
        if spec.weights.path is None or not spec.weights.path.is_dir():
            detail = f"the model folder {spec.weights.path} is not there"
            raise ProviderError(detail, "Start again: weights come first.")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = LogStore(folder / "log")
        key_file = _write_key(folder, spec.api_key)
        reservation = _reserve_port()
        port = reservation.getsockname()[1]
        try:
            process = await asyncio.create_subprocess_exec(
                *engine_argv(engine, spec, placement, port=port, api_key_file=key_file),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                cwd=folder,
                env=engine_environment(placement, folder, os.environ),
                start_new_session=True,
            )
        except BaseException as error:
            reservation.close()
            if isinstance(error, OSError):
                raise ProviderError(f"the engine cannot be started: {error}", "Run 'slipway doctor'.") from error
            raise
        log.append(f"[slipway] engine started: process {process.pid}, port {port}\n".encode())
        return cls(spec, placement, process, reservation, log)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self.exit_code is None

    @property
    def ending(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping is not None

    @property
    def status(self) -> ReplicaStatus:
        """What the provider says about it."""
        url = f"http://127.0.0.1:{self._reservation.getsockname()[1]}" if self.alive else None
        state = ReplicaState.RUNNING if self.alive else ReplicaState.EXITED
        return ReplicaStatus(self.spec.name, state, self.spec.boot_token, url, self.exit_code, labels=self.spec.labels)

    async def wait(self) -> None:
        """Return when it has ended and its log is complete."""
        await asyncio.shield(self._watching)

    def stop(self, grace_s: float) -> None:
        """Begin to end it. A later call changes nothing, unless its ``grace_s`` is 0: that ends it at once."""
        if self.alive and self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace_s))
        elif self.alive and grace_s <= 0:
            self._signal_group(signal.SIGKILL)

    async def _stop(self, grace_s: float) -> None:
        # SIGTERM to the engine's first process alone: it drains, and needs its helpers for that.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), grace_s)
        except TimeoutError:
            self._log.append(f"[slipway] engine did not end within {grace_s:g} s: killed\n".encode())
            self._signal_group(signal.SIGKILL)

    async def _watch(self) -> None:
        reading = asyncio.create_task(self._copy_output())
        exit_code = await self._process.wait()
        self._signal_group(signal.SIGKILL)  # what it left behind in its group
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reading, _LAST_WORDS_S)
        self._log.append(f"[slipway] engine ended: {describe_exit(exit_code)}\n".encode())
        self._reservation.close()
        self.exit_code = exit_code

    async def _copy_output(self) -> None:
        stream = self._process.stdout
        while stream is not None and (data := await stream.read(_READ_SIZE)):
            self._log.append(data)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def describe_exit(exit_code: int) -> str:
    """``exit code 2``, or ``killed by SIGKILL (exit code -9)``."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name} (exit code {exit_code})"
    except ValueError:
        return f"killed by signal {-exit_code} (exit code {exit_code})"


def _reserve_port() -> socket.socket:
    """A socket bound to a free port of the loopback interface, never listened on.

    While it is open nobody is given the port by chance; the engine may bind it because both sides set SO_REUSEADDR,
    which Linux permits as long as neither listens yet. So no other program can slip in between choosing and binding.
    """
    reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    return reservation


def _write_key(folder: Path, api_key: str) -> Path:
    path = folder / "api-key"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(api_key + "\n")
    return path
