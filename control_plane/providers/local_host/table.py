"""Every replica that this host runs, by name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path

import psutil

from control_plane.providers.base import ReplicaSpec, ReplicaState, ReplicaStatus
from control_plane.providers.engine_flags import check_name
from control_plane.providers.local_host import hardware
from control_plane.providers.local_host.command import MARKER
from control_plane.providers.local_host.placement import NoRoom, place
from control_plane.providers.local_host.process import ReplicaProcess

logger = logging.getLogger(__name__)


class ReplicaTable:
    """Names to processes. What has exited stays until it is deleted, so that its exit code can be asked for."""

    def __init__(self, folder: Path, engine: Path) -> None:
        self._folder = folder
        self._engine = engine
        self._replicas: dict[str, ReplicaProcess] = {}
        self._creating = asyncio.Lock()  # two replicas must not be given the same room
        self._forgetting: set[asyncio.Task[None]] = set()

    async def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        """Start a replica, or return the one of this name: the live one, or the same boot after its end.

        Where its device has no room now it is pending, and not remembered: the caller asks again.
        """
        check_name(spec.name)
        gpus = await asyncio.to_thread(hardware.gpus)  # a driver may take a second to answer
        async with self._creating:
            present = self._replicas.get(spec.name)
            if present is None or (not present.alive and present.spec.boot_token != spec.boot_token):
                running = [(other.spec, other.placement) for other in self._replicas.values() if other.alive]
                room = place(spec, running, gpus, os.sched_getaffinity(0))
                if isinstance(room, NoRoom):
                    return ReplicaStatus(spec.name, ReplicaState.PENDING, spec.boot_token, reason=room.reason)
                present = await ReplicaProcess.start(spec, room, self._folder / spec.name, self._engine)
                self._replicas[spec.name] = present
            return present.status

    def find(self, name: str) -> ReplicaStatus:
        """The replica of this name; ``ABSENT`` if there is none."""
        present = self._replicas.get(name)
        return present.status if present else ReplicaStatus(name, ReplicaState.ABSENT)

    def list(self) -> list[ReplicaStatus]:
        """Every replica here."""
        return [replica.status for replica in self._replicas.values()]

    def held(self) -> dict[str, int]:
        """Bytes that live replicas said they hold, by the hardware that they are on."""
        held: dict[str, int] = {}
        for replica in self._replicas.values():
            if replica.alive:
                held[replica.spec.hardware_id] = held.get(replica.spec.hardware_id, 0) + replica.spec.memory_bytes
        return held

    def delete(self, name: str, boot_token: str | None, grace_s: float) -> None:
        """Begin to end a replica, of another boot none; it is absent once its process is gone. Its log stays."""
        present = self._replicas.get(name)
        if present is None or boot_token not in {None, present.spec.boot_token}:
            return
        if not present.alive:
            del self._replicas[name]
            return
        if not present.ending:
            task = asyncio.create_task(self._forget_after_end(name, present))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)
        present.stop(grace_s)

    async def _forget_after_end(self, name: str, replica: ReplicaProcess) -> None:
        await replica.wait()
        if self._replicas.get(name) is replica:
            del self._replicas[name]

    async def end_all(self, grace_s: float) -> None:
        """End every replica; returns when none is left."""
        replicas = list(self._replicas.values())
        for replica in replicas:
            replica.stop(grace_s)
        await asyncio.gather(*(replica.wait() for replica in replicas))

    def kill_all(self) -> None:
        """End every replica at once, drained or not."""
        for replica in self._replicas.values():
            replica.stop(0)

    def kill_survivors(self) -> None:
        """Kill engine processes that an earlier host of this folder left behind.

        The parent-death signal makes that all but impossible; an engine's helper process may still be on its way out.
        They are known by the marker in their environment, which, unlike a process id in a file, is never reused.
        """
        marker = f"{MARKER}={self._folder}{os.sep}".encode()
        for process in psutil.process_iter(["pid"]):
            try:
                environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            except OSError:
                continue
            if any(entry.startswith(marker) for entry in environment.split(b"\0")):
                logger.warning("killing process %d, which an earlier local host left behind", process.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
