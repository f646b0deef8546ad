"""Which processes ``slipway up`` runs, in which order, and how each shows that it works."""

from __future__ import annotations

import asyncio
import socket
import sys
from http import HTTPStatus

import httpx

from control_plane import broker
from control_plane.providers.local_host import protocol
from control_plane.settings import Settings
from control_plane.supervisor import ready_file
from control_plane.supervisor.child import ChildSpec
from control_plane.supervisor.supervisor import Plan

#: Seconds that engines get to finish their requests when everything stops.
DRAIN_S = 20.0

#: Engines end before the web does, so that their last tokens still reach somebody; the reconcilers end first of all,
#: so that they do not start again what is being stopped.
_STOP_ORDER = (("scheduler", "worker"), ("local-host",), ("web",), ("redis",))


def make_plan(settings: Settings, listener: socket.socket) -> Plan:
    """The processes of ``settings``. ``listener`` is the web's socket: held by the supervisor, so that a request that
    comes while the web is being started again waits instead of being refused."""
    foundation = [_local_host(settings)]
    if settings.embedded_broker:
        foundation.insert(0, _redis(settings))
    return Plan(
        start=(foundation, (_web(settings, listener), _worker(settings), _scheduler(settings))), stop=_STOP_ORDER
    )


def _python(*argv: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *argv)


def _redis(settings: Settings) -> ChildSpec:
    async def ready(_pid: int) -> bool:
        return await asyncio.to_thread(broker.ping, settings.broker_url)

    return ChildSpec("redis", broker.server_argv(settings), settings.child_environment(), ready)


def _local_host(settings: Settings) -> ChildSpec:
    async def ready(pid: int) -> bool:
        answer = await asyncio.to_thread(protocol.call, settings.local_host_socket, "ping", timeout_s=2.0)
        return bool(answer == pid)

    argv = _python("control_plane.providers.local_host", "--drain", str(DRAIN_S))
    return ChildSpec("local-host", argv, settings.child_environment(), ready, stop_grace_s=DRAIN_S + 5)


def _web(settings: Settings, listener: socket.socket) -> ChildSpec:
    url = f"{settings.local_url}/readyz"

    async def ready(_pid: int) -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(url)).status_code == HTTPStatus.OK

    argv = _python(
        *("uvicorn", "--factory", "web.app:create_app", "--fd", str(listener.fileno())),
        *("--no-access-log", "--timeout-graceful-shutdown", "5"),
    )
    return ChildSpec("web", argv, settings.child_environment(), ready, pass_fds=(listener.fileno(),))


def _worker(settings: Settings) -> ChildSpec:
    return _own_command(settings, "worker")


def _scheduler(settings: Settings) -> ChildSpec:
    return _own_command(settings, "scheduler", command="beat")


def _own_command(settings: Settings, name: str, command: str | None = None) -> ChildSpec:
    async def ready(pid: int) -> bool:
        return ready_file.announced(settings, name, pid)

    argv = _python("control_plane.cli", command or name)
    # Rows are the queue: what a worker has not finished after the grace period, the next one takes up again.
    return ChildSpec(name, argv, settings.child_environment(), ready, stop_grace_s=5.0)
