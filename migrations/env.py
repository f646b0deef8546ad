"""Alembic's entry: runs the migrations on the database of the settings, one process at a time."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text
from sqlmodel import SQLModel

import control_plane.tables  # noqa: F401 (fills SQLModel.metadata)
from control_plane.database import make_engine
from control_plane.settings import get_settings

#: Any constant will do, as long as every Slipway uses the same: it names the lock around an upgrade.
_UPGRADE_LOCK = 0x511_9A7


def _run(connection: Connection) -> None:
    """All of it in one transaction: another upgrade at the same time waits and then finds nothing to do."""
    on_sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        compare_type=True,
        render_as_batch=on_sqlite,
        transactional_ddl=True,  # Alembic holds SQLite incapable of it, for Python's driver, whose habits ours has not
    )
    with context.begin_transaction():
        if not on_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        context.run_migrations()
        if on_sqlite and (broken := connection.execute(text("PRAGMA foreign_key_check")).all()):
            raise RuntimeError(f"the migration would leave rows that point at nothing, and was undone: {broken[:3]}")


def _do_not_enforce_foreign_keys(connection: Connection) -> None:
    """SQLite changes a table by making another and dropping the old one, which rows that point at it would forbid; they
    are checked at the end instead. The switch works outside of transactions only, hence past SQLAlchemy."""
    driver = connection.connection.driver_connection
    if driver is not None:
        driver.execute("PRAGMA foreign_keys=OFF")


def _main() -> None:
    shared = context.config.attributes.get("connection")
    if shared is not None:
        _run(shared)
        return
    engine = make_engine(context.config.get_main_option("sqlalchemy.url") or get_settings().database_url)
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            _do_not_enforce_foreign_keys(connection)
        _run(connection)
        connection.commit()
    engine.dispose()


_main()
