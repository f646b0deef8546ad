"""The local host's server: requests from workers in, calls on the replica table out, until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from control_plane.errors import SlipwayError, Unavailable
from control_plane.providers import wire
from control_plane.providers.base import ProviderError, ProviderUnavailable
from control_plane.providers.local_host import protocol
from control_plane.providers.local_host.table import ReplicaTable

logger = logging.getLogger(__name__)

Operation = Callable[[dict[str, Any]], Awaitable[Any]]


class LocalHost:
    """Serves one socket. When it is told to end it refuses requests, drains every replica, and only then returns."""

    def __init__(self, table: ReplicaTable, *, drain_s: float) -> None:
        self._table = table
        self._drain_s = drain_s
        self._ending = asyncio.Event()
        self._operations: dict[str, Operation] = {
            "ping": self._ping,
            "create": self._create,
            "find": self._find,
            "list": self._list,
            "held": self._held,
            "delete": self._delete,
        }

    async def run(self, path: Path) -> None:
        """Serve at ``path`` until SIGTERM or SIGINT; a second signal ends the replicas at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        self._table.kill_survivors()
        with listening_at(path) as listener:
            async with await asyncio.start_unix_server(self._serve, sock=listener, limit=protocol.MAX_LINE):
                logger.info("ready at %s", path)
                await self._ending.wait()
                await self._table.end_all(self._drain_s)

    def _on_signal(self) -> None:
        if self._ending.is_set():
            self._table.kill_all()
        self._ending.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            reply = await self._reply(reader)
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _reply(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        try:
            request = json.loads(await reader.readline())
            if self._ending.is_set():
                raise ProviderUnavailable("the local host is shutting down", protocol.NEXT_STEP_WHEN_AWAY)
            return {"result": await self._operations[request.pop("operation")](request)}
        except SlipwayError as error:
            code = ProviderUnavailable.code if isinstance(error, Unavailable) else ProviderError.code
            return {"error": code, "detail": error.detail, "next_step": error.next_step}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.exception("a request that makes no sense")
            detail = f"the local host does not understand the request ({type(error).__name__})"
            return {"error": ProviderError.code, "detail": detail, "next_step": "Restart Slipway: its parts differ."}

    async def _ping(self, _request: dict[str, Any]) -> int:
        return os.getpid()

    async def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        return wire.status_to_json(await self._table.create(wire.spec_from_json(request["spec"])))

    async def _find(self, request: dict[str, Any]) -> dict[str, Any]:
        return wire.status_to_json(self._table.find(request["name"]))

    async def _list(self, _request: dict[str, Any]) -> list[dict[str, Any]]:
        return [wire.status_to_json(status) for status in self._table.list()]

    async def _held(self, _request: dict[str, Any]) -> dict[str, int]:
        return self._table.held()

    async def _delete(self, request: dict[str, Any]) -> None:
        self._table.delete(request["name"], request["boot_token"], float(request["grace_s"]))


@contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    """A Unix socket at ``path`` (mode 0600), of which only one process at a time can be the server.

    :raises Unavailable: another process serves it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            detail = f"another local host already serves {path}"
            raise Unavailable(detail, "Stop the other one first: 'slipway down'.") from error
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener, protocol.unix_address(path) as address:
            before = os.umask(0o177)
            try:
                listener.bind(address)
            finally:
                os.umask(before)
            listener.listen(128)
            try:
                yield listener
            finally:
                path.unlink(missing_ok=True)
