"""Transactions: what is rolled back leaves nothing behind, not even a message."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from control_plane.accounts.tables import Team
from control_plane.clock import Clock
from control_plane.database import Database, after_commit


def test_messages_leave_after_the_commit_and_only_then(database: Database, clock: Clock) -> None:
    sent: list[str] = []

    def insert(name: str, *, fails: bool) -> None:
        with database.transaction() as session:
            session.add(Team(name=name, created_at=clock.now()))
            after_commit(session, lambda: sent.append(name))
            assert name not in sent
            if fails:
                raise RuntimeError("the step failed")

    with pytest.raises(RuntimeError):
        insert("lost", fails=True)
    insert("kept", fails=False)

    assert sent == ["kept"]
    with database.reading() as session:
        assert list(session.execute(text("SELECT name FROM team")).scalars()) == ["kept"]


def test_a_reader_does_not_wait_for_a_writer(database: Database, clock: Clock) -> None:
    with database.transaction() as writer:
        writer.add(Team(name="half written", created_at=clock.now()))
        writer.flush()
        with database.reading() as reader:
            assert reader.execute(text("SELECT count(*) FROM team")).scalar_one() == 0


def test_writers_wait_for_each_other(database: Database, clock: Clock) -> None:
    def insert(number: int) -> None:
        with database.transaction() as session:
            session.execute(text("SELECT count(*) FROM team"))
            session.add(Team(name=f"team {number}", created_at=clock.now()))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(insert, range(40)))

    with database.reading() as session:
        assert session.execute(text("SELECT count(*) FROM team")).scalar_one() == 40
