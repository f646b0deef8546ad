"""The database: engine, transactions, and the messages that leave only after a commit.

Nobody calls ``commit()`` by hand and nobody talks to the network inside a session::

    with database.transaction() as session:       # one transaction; rolled back on an exception
        row = repository.claim(session, ...)
        session.info[AFTER_COMMIT]  ◄── database.after_commit(session, send_hint)
    # committed here, and only then are the hints sent: a worker that gets one sees the row
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import DateTime, Dialect, Engine, MetaData, create_engine, event
from sqlalchemy.types import TypeDecorator
from sqlmodel import Session, SQLModel

from control_plane.settings import get_settings

logger = logging.getLogger(__name__)

_AFTER_COMMIT = "after_commit"

#: Deterministic constraint names, so that Alembic can find them on every database.
SQLModel.metadata.naming_convention = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
).naming_convention


class UTCDateTime(TypeDecorator[datetime]):
    """A timezone-aware UTC time on every database (SQLite forgets the zone; this puts it back)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database: refuse naive times."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a naive datetime was about to be stored: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database: aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def normalise_url(url: str) -> str:
    """``postgres://`` and ``postgresql://`` mean psycopg 3 here."""
    for prefix in ("postgres://", "postgresql://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def make_engine(url: str) -> Engine:
    """An engine for ``url``; SQLite is set up so that several processes can use one file."""
    url = normalise_url(url)
    if not url.startswith("sqlite"):
        options = {
            # A server that is cut off must be noticed within seconds: whoever waits could go on without it.
            "connect_timeout": 5,
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            # Text comes as text, also from a database that was made without an encoding.
            "client_encoding": "UTF8",
        }
        return create_engine(
            url, pool_pre_ping=True, pool_size=10, max_overflow=20, pool_timeout=10, connect_args=options
        )
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin_immediate(connection: Any) -> None:
        # A deferred transaction that reads and then writes fails at once with "database is locked" when another
        # writer got between; taking the write lock first makes writers wait for each other instead.
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if connection.get_execution_options().get("write", True) else "BEGIN"
        )

    return engine


class Database:
    """Sessions on one database."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self._reader = self.engine.execution_options(write=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end, then sends its :func:`after_commit` messages; an exception rolls back."""
        with Session(self.engine, expire_on_commit=False) as session:
            with session.begin():
                yield session
            _send_messages(session)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for queries only: never blocks a writer, and what it changes is not kept."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session


def after_commit(session: Session, message: Callable[[], object]) -> None:
    """Call ``message`` once the transaction of ``session`` is committed; never if it is rolled back."""
    session.info.setdefault(_AFTER_COMMIT, []).append(message)


def _send_messages(session: Session) -> None:
    for message in session.info.pop(_AFTER_COMMIT, []):
        try:
            message()
        except Exception:
            # The rows are the queue: the sweep repairs a hint that could not be sent.
            logger.warning("a hint could not be sent; the sweep will find the row", exc_info=True)


@lru_cache
def get_database() -> Database:
    """The database of this process."""
    return Database(get_settings().database_url)
