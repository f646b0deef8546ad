"""Migrations go up, agree with the tables, and go down, on both databases, with rows in them."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, text

from control_plane.accounts.tables import Team
from control_plane.clock import Clock
from control_plane.database import Database
from control_plane.migrate import check, downgrade, upgrade


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


def test_a_rolled_back_transaction_sends_nothing(database: Database, clock: Clock) -> None:
    from control_plane.database import after_commit

    sent: list[str] = []
    with pytest.raises(RuntimeError), database.transaction() as session:
        session.add(Team(name="lost", created_at=clock.now()))
        after_commit(session, lambda: sent.append("lost"))
        raise RuntimeError("the step failed")
    with database.transaction() as session:
        session.add(Team(name="kept", created_at=clock.now()))
        after_commit(session, lambda: sent.append("kept"))
        assert sent == []
    assert sent == ["kept"]
    with database.reading() as session:
        assert [name for (name,) in session.execute(text("SELECT name FROM team"))] == ["kept"]
