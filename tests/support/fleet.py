"""The control plane as real processes, several of each role, which a test kills and starts again.

Web servers, workers and schedulers share a PostgreSQL (or SQLite), a Redis and one root secret, as on several machines.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from sqlalchemy import create_engine, text

from control_plane.accounts.service import bootstrap
from control_plane.clock import SYSTEM_CLOCK
from control_plane.context import Context
from control_plane.database import Database
from control_plane.migrate import upgrade
from control_plane.settings import Settings
from tests.support.processes import eventually
from tests.support.slipway import free_port

ROOT = Path(__file__).parents[2]
#: Seconds until a process that was started must answer; importing takes most of them on a busy machine.
_START_S = 90.0
_COMMANDS = {"web": "web", "worker": "worker", "scheduler": "beat"}
#: What each writes to its log when it has begun its work.
_READY = {"web": "Uvicorn running", "worker": " ready.", "scheduler": "is starting"}


class Fleet:
    """Processes by name: ``web-0``, ``worker-1``, ``scheduler-0``, … with an operator's API key.

    One that ends is started again at once, as ``slipway up``, systemd and compose do.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str], within: Mapping[str, Sequence[str]]) -> None:
        self.settings = settings
        self._environment, self._within = dict(environment), dict(within)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        self._log_starts: dict[str, int] = {}
        self._stopping = threading.Event()
        # The kernel's parent-death signal means the thread that started a process: one that lives as long as the fleet.
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        #: When each was last started, by time.monotonic().
        self.started_at: dict[str, float] = {}
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        upgrade(settings.database_url)
        self.context = Context(
            settings, Database(settings.database_url), SYSTEM_CLOCK, providers={}, hint=lambda *_: None
        )
        api_key = bootstrap(self.context).api_key
        assert api_key is not None
        self.api_key = api_key

    @property
    def names(self) -> list[str]:
        """Of all processes."""
        return list(self._processes)

    @property
    def urls(self) -> list[str]:
        """Of all web servers."""
        return [f"http://127.0.0.1:{port}" for port in self._ports.values()]

    def start(self, counts: Mapping[str, int]) -> None:
        """Start so many of each role and return when all have begun their work."""
        for role, count in counts.items():
            for number in range(count):
                self._spawn(f"{role}-{number}")
        self._keeper.start()
        for name in self.names:
            eventually(lambda name=name: self.is_ready(name), f"{name} is ready", _START_S)

    def kill(self, name: str) -> None:
        """SIGKILL; another one comes in its place."""
        process = self._processes[name]
        process.kill()
        process.wait(10)

    def pid(self, name: str) -> int:
        """Of a process."""
        return self._processes[name].pid

    def is_ready(self, name: str) -> bool:
        """Whether a process has begun its work since it was last started."""
        if self._processes[name].poll() is not None:
            return False
        with self._log(name).open("rb") as log:
            log.seek(self._log_starts[name])
            return _READY[name.partition("-")[0]].encode() in log.read()

    def stop(self) -> None:
        """SIGKILL all of them."""
        self._stopping.set()
        self._keeper.join()
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(10)
        self.context.database.engine.dispose()

    def api(self) -> Api:
        """A client of its own for one thread."""
        return Api(self.urls, self.api_key)

    def logs(self, tail: int = 2000) -> str:
        """The end of what each process said."""
        return "\n".join(f"--- {name}\n{self._log(name).read_text()[-tail:]}" for name in self._processes)

    def _keep(self) -> None:
        while not self._stopping.wait(0.1):
            for name, process in list(self._processes.items()):
                if process.poll() is not None:
                    self._spawn(name)

    def _spawn(self, name: str) -> None:
        """By the commands that the documentation names."""
        role = name.partition("-")[0]
        argv = [sys.executable, "-m", "control_plane.cli", _COMMANDS[role], "--data", str(self.settings.data_dir)]
        if role == "web":
            argv += ["--port", str(self._ports.setdefault(name, free_port()))]
        with self._log(name).open("ab") as log:
            self._log_starts[name], self.started_at[name] = log.tell(), time.monotonic()
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self._within.get(role, ()), *argv],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.settings.child_environment() | self._environment | {"PYTHONPATH": str(ROOT)},
                cwd=self.settings.data_dir,
            )

    def _log(self, name: str) -> Path:
        return self.settings.data_dir / f"{name}.log"


class Api:
    """A client that does what a careful one does: it asks the next server when one is gone, and sends what it sent
    before with the same idempotency key."""

    def __init__(self, urls: list[str], api_key: str, patience_s: float = 120.0) -> None:
        self._urls = cycle(urls)
        self._patience_s = patience_s
        self._client = httpx.Client(headers={"Authorization": f"Bearer {api_key}"}, timeout=30, trust_env=False)

    def __call__(self, method: str, path: str, **arguments: Any) -> Any:
        """The JSON of the first answer that is neither a broken connection nor a 5xx.

        :raises httpx.HTTPStatusError: the request is refused.
        :raises TimeoutError: no server answers in time.
        """
        deadline, last = time.monotonic() + self._patience_s, ""
        while time.monotonic() < deadline:
            try:
                answer = self._client.request(method, f"{next(self._urls)}/api/v1{path}", **arguments)
            except httpx.TransportError as error:
                last = repr(error)
            else:
                if answer.status_code < 500:
                    answer.raise_for_status()
                    return answer.json()
                last = answer.text
            time.sleep(0.1)
        raise TimeoutError(f"{method} {path}: no answer in {self._patience_s:g} s, at last {last[:500]}")

    def launch(self, **body: Any) -> str:
        """Launch an instance, once however often it has to be sent; its id."""
        return str(self("POST", "/instances", json=body, headers={"Idempotency-Key": uuid4().hex})["id"])

    def instances(self, *, live: bool = False) -> list[dict[str, Any]]:
        """All of them."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self("GET", "/instances", params={"limit": 200, "live": live} | cursor)
            found += page["items"]
            if not page["next_cursor"]:
                return found
            cursor = {"cursor": page["next_cursor"]}

    def close(self) -> None:
        """Let its connections go."""
        self._client.close()


@contextmanager
def running_fleet(
    settings: Settings,
    *,
    webs: int = 1,
    workers: int = 1,
    schedulers: int = 1,
    environment: Mapping[str, str] = {},
    within: Mapping[str, Sequence[str]] = {},
) -> Iterator[Fleet]:
    """A fleet on the database and the broker of ``settings``; every process is gone afterwards.

    :param environment: variables for all processes.
    :param within: by role, the beginning of a command line that runs the rest of it.
    """
    counts = {"web": webs, "worker": workers, "scheduler": schedulers}
    fleet = Fleet(settings, environment, within)
    try:
        fleet.start(counts)
        yield fleet
    except BaseException:
        sys.stderr.write(fleet.logs())
        raise
    finally:
        fleet.stop()


@contextmanager
def fresh_database(server_url: str, options: str = "") -> Iterator[str]:
    """An empty database on a PostgreSQL server, made with ``options``; dropped afterwards."""
    name = f"fleet_{uuid4().hex[:12]}"
    _administer(server_url, f'CREATE DATABASE "{name}" {options}')
    yield server_url.format(database=name)
    _administer(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _administer(server_url: str, statement: str) -> None:
    engine = create_engine(server_url.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
