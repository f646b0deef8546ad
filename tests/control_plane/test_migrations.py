"""Migrations go up, agree with the tables, and go down, on both databases, with rows in them."""

from __future__ import annotations

from sqlalchemy import inspect, text
from sqlmodel import select

from control_plane.accounts.tables import Team
from control_plane.clock import Clock
from control_plane.database import Database
from control_plane.migrate import check, downgrade, upgrade
from tests.support.fleet import fresh_database


def test_up_check_down_up(database: Database, database_url: str, clock: Clock) -> None:
    with database.transaction() as session:
        session.add(Team(name="one", created_at=clock.now()))
    check(database_url)

    downgrade(database_url)
    assert inspect(database.engine).get_table_names() == ["alembic_version"]

    upgrade(database_url)
    check(database_url)
    with database.reading() as session:
        assert session.execute(text("SELECT count(*) FROM team")).scalar_one() == 0


def test_a_database_that_was_made_without_an_encoding_will_do(postgres_server: str, clock: Clock) -> None:
    """As ``initdb`` makes it where no locale is set."""
    plain = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    with fresh_database(postgres_server, plain) as url:
        upgrade(url)
        database = Database(url)
        with database.transaction() as session:
            session.add(Team(name="Zoë", created_at=clock.now()))
        with database.reading() as session:
            assert session.exec(select(Team)).one().name == "Zoë"
        database.engine.dispose()
