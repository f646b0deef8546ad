"""Fixtures that every part of the suite shares: both databases, a real Redis, a clock, the local hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from sqlalchemy import create_engine, text

from control_plane.database import Database
from control_plane.migrate import upgrade
from tests.support.clock import FakeClock
from tests.support.postgres import running_postgres
from tests.support.redis import running_redis

if not torch.cuda.is_available():
    # Before any Triton form is imported: Triton decides between compiling and interpreting where a kernel is defined.
    os.environ["TRITON_INTERPRET"] = "1"

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Workers that share the cores: threads of one that wait for each other hold up the other.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))

pytest_plugins = ["tests.hub.fixtures"]


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still until the test moves it."""
    return FakeClock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server; a URL with ``{database}`` to fill in."""
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The broker URL of a private Redis."""
    with running_redis() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy from: migrating once is quicker than once a test."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> str:
    """The name of a migrated PostgreSQL database to copy from."""
    _administer_postgres(postgres_server, "CREATE DATABASE migrated")
    upgrade(postgres_server.format(database="migrated"))
    return "migrated"


def _administer_postgres(server: str, statement: str) -> None:
    engine = create_engine(server.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, migrated database; every test that uses it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "test.db")
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    server, name = request.getfixturevalue("postgres_server"), f"test_{uuid4().hex[:12]}"
    _administer_postgres(server, f'CREATE DATABASE "{name}" TEMPLATE "{request.getfixturevalue("migrated_postgres")}"')
    yield server.format(database=name)
    _administer_postgres(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The domain's view of that database."""
    database = Database(database_url)
    yield database
    database.engine.dispose()
