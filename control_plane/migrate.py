"""Bringing the database's schema up to date."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from control_plane.database import make_engine


def alembic_config(database_url: str) -> Config:
    """Alembic's configuration, without an ini file: the only thing that varies is the database."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Migrate up to ``revision``; a lock keeps two upgrades apart."""
    if database_url.startswith("sqlite:///"):
        Path(database_url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    command.upgrade(alembic_config(database_url), revision)


def downgrade(database_url: str, revision: str = "base") -> None:
    """Migrate down to ``revision``."""
    command.downgrade(alembic_config(database_url), revision)


def check(database_url: str) -> None:
    """Raise when the tables and the migrations disagree."""
    command.check(alembic_config(database_url))


def is_current(database_url: str) -> bool:
    """Whether the database has every migration; one without any has none."""
    head = ScriptDirectory.from_config(alembic_config(database_url)).get_current_head()
    engine = make_engine(database_url)
    try:
        with engine.connect().execution_options(write=False) as connection:
            return MigrationContext.configure(connection).get_current_revision() == head
    finally:
        engine.dispose()
