"""A control plane of real processes on PostgreSQL, Redis and the imaginary place, and what each of them costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from control_plane.settings import Settings
from tests.support.fleet import Fleet, fresh_database, running_fleet
from tests.support.postgres import running_postgres
from tests.support.redis import running_redis

ROOT = Path(__file__).resolve().parents[2]
#: Who a process works for, by its program's name.
_BY_PROGRAM = {"postgres": "PostgreSQL", "redis-server": "Redis"}


@contextmanager
def running_place(load_seconds: float, answer_seconds: float) -> Iterator[str]:
    """The imaginary place in a process of its own, where engines need ``load_seconds`` and calls ``answer_seconds``.

    Yields its URL.
    """
    program = [sys.executable, "-m", "control_plane.providers.fake.server"]
    argv = [*program, "--port", "0", "--load-seconds", str(load_seconds), "--answer-seconds", str(answer_seconds)]
    place = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert place.stdout is not None
        yield place.stdout.readline().decode().split("SLIPWAY_FAKE_URL=")[1].strip()
    finally:
        place.kill()
        place.wait(10)


@contextmanager
def running_site(workers: int, load_seconds: float, answer_seconds: float = 0.0) -> Iterator[Fleet]:
    """One web server, a scheduler and ``workers`` workers, with nothing in their database."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_postgres() as server_url,
        running_redis() as broker_url,
        fresh_database(server_url) as database_url,
        running_place(load_seconds, answer_seconds) as place_url,
    ):
        settings = Settings(
            data_dir=Path(folder) / "data",
            database_url=database_url,
            broker_url=broker_url,
            providers=["fake"],
            fake_url=place_url,
        )
        with running_fleet(settings, workers=workers) as fleet:
            yield fleet


def cpu_seconds(fleet: Fleet) -> Counter[str]:
    """Processor time so far, of this process and by what its children are."""
    roles = {fleet.pid(name): name.partition("-")[0] for name in fleet.names}
    spent: Counter[str] = Counter({"load generator": sum(os.times()[:2])})
    for process in psutil.Process().children(recursive=True):
        try:
            role = roles.get(process.pid) or _BY_PROGRAM.get(process.name(), "imaginary place")
            spent[role] += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return spent
