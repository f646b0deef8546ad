"""The command line in this process, against the real application behind a real socket."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import uvicorn
from fastapi import FastAPI

from control_plane.accounts import service
from control_plane.app import create_app
from control_plane.cli import main
from control_plane.cli.client import logs, watch
from control_plane.context import Context
from control_plane.database import Database
from control_plane.settings import Settings, get_settings
from tests.control_plane.cli_client.world import Engine, Machine, Story, running_engine
from tests.hub.models import tiny_llama
from tests.hub.server import HubServer
from tests.support.clock import FakeClock


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    """A standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


Slipway = Callable[..., Result]


@contextmanager
def serving(app: FastAPI, listener: socket.socket) -> Iterator[None]:
    """Run ``app`` with uvicorn in a thread; ended, and its port closed, on leaving."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        for _ in range(500):
            if server.started:
                break
            time.sleep(0.01)
        assert server.started
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A free port, held from the first moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def database_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """SQLite only: a command sees the API, which has its own tests on both databases."""
    return f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'test.db')}"


@pytest.fixture
def machine() -> Machine:
    """The hardware there is."""
    return Machine()


@pytest.fixture
def context(
    *,
    database: Database,
    database_url: str,
    clock: FakeClock,
    tmp_path: Path,
    listener: socket.socket,
    machine: Machine,
) -> Context:
    """What the server's services get."""
    settings = Settings(
        data_dir=tmp_path / "server",
        database_url=database_url,
        secret_key="the root secret of a test",
        port=listener.getsockname()[1],
    )
    return Context(settings, database, clock, providers={"local": machine}, hint=lambda *_: None)


@pytest.fixture
def story(context: Context, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Story:
    """What will happen to instances while a command looks at them, which it does without a pause here."""
    monkeypatch.setattr(watch, "POLL_INTERVAL_S", 0)
    monkeypatch.setattr(logs, "POLL_INTERVAL_S", 0)
    return Story(context, clock)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """What answers behind an API URL."""
    with running_engine() as engine:
        yield engine


@pytest.fixture
def model(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small model on the local hub."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.add_repo("tests/tiny", tiny_llama(tmp_path / "tiny"))
    return "tests/tiny"


@pytest.fixture
def url(context: Context, story: Story, listener: socket.socket) -> Iterator[str]:
    """The address of a running server."""
    with serving(story.install(create_app(context)), listener):
        yield context.settings.public_url


@pytest.fixture
def api_key(context: Context) -> str:
    """The operator's key."""
    key = service.bootstrap(context).api_key
    assert key is not None
    return key


@pytest.fixture
def bare_slipway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Slipway]:
    """Runs ``slipway`` as on a machine that knows no server. ``typed`` comes from a terminal, ``stdin`` from a pipe."""

    def run(*arguments: str, stdin: str = "", typed: str | None = None, **environment: str) -> Result:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLIPWAY_")}
        inherited["SLIPWAY_DATA_DIR"] = str(tmp_path / "client")
        monkeypatch.setattr(sys, "argv", ["slipway", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin) if typed is None else Terminal(typed))
        get_settings.cache_clear()
        capsys.readouterr()
        # A command changes the environment for its children; patch.dict takes that back.
        with patch.dict(os.environ, inherited | environment, clear=True), pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert isinstance(code, int)
        return Result(code, *capsys.readouterr())

    yield run
    get_settings.cache_clear()


@pytest.fixture
def slipway(bare_slipway: Slipway, url: str, api_key: str) -> Slipway:
    """Runs ``slipway`` against the server, with the operator's key."""
    return partial(bare_slipway, SLIPWAY_URL=url, SLIPWAY_API_KEY=api_key)
