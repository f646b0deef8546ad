"""Signs of life: who beats, who has stopped, and what waits for nobody."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from control_plane.context import Context
from control_plane.database import Database
from control_plane.downloads.tables import Download
from control_plane.processes import repository
from control_plane.processes.heartbeat import Heart, beating
from control_plane.processes.service import workers
from control_plane.processes.tables import ProcessHeartbeat, ProcessKind
from control_plane.settings import Settings
from tests.support.clock import FakeClock
from tests.support.processes import eventually


@pytest.fixture
def context(database: Database, database_url: str, clock: FakeClock, tmp_path: Path) -> Context:
    """What the service gets."""
    settings = Settings(data_dir=tmp_path, database_url=database_url, secret_key="the root secret of a test")
    return Context(settings, database, clock, providers={}, hint=lambda *_: None)


def rows(database: Database) -> list[ProcessHeartbeat]:
    with database.reading() as session:
        return repository.processes(session)


def states(context: Context) -> dict[str, str]:
    return {process.kind: process.state for process in workers(context).items}


def test_a_process_beats_while_it_lives(database: Database, clock: FakeClock) -> None:
    with Heart(database, clock, ProcessKind.WORKER, every_s=0.01) as heart:
        eventually(lambda: len(rows(database)) == 1, "the first beat")
        clock.advance(7)
        heart.note_task()
        eventually(lambda: rows(database)[0].last_task_at == clock.now(), "a beat that tells of the task")
        assert rows(database)[0].seen_at == clock.now()
        assert rows(database)[0].name == heart.name
    assert rows(database) == [], "an orderly end takes the row away"


def test_an_application_beats_while_it_serves(context: Context, database: Database) -> None:
    app = FastAPI(lifespan=beating(ProcessKind.WEB))
    app.state.context = context
    with TestClient(app):
        eventually(lambda: [row.kind for row in rows(database)] == ["web"], "the application's beat")
    assert rows(database) == []


def test_a_killed_process_goes_stale_and_is_forgotten_after_a_day(
    context: Context, database: Database, clock: FakeClock
) -> None:
    Heart(database, clock, ProcessKind.WORKER).beat()
    assert states(context) == {"worker": "alive"}
    clock.advance(95)
    (process,) = workers(context).items
    assert (process.state, process.words) == ("silent", f"{process.name} was last seen 95 s ago")
    clock.advance(600)
    assert states(context) == {"worker": "ended"}
    with database.transaction() as session:
        repository.forget(session, clock.now())
    assert len(rows(database)) == 1
    clock.advance(86400)
    with database.transaction() as session:
        repository.forget(session, clock.now())
    assert rows(database) == []


def test_a_worker_that_lives_and_takes_no_task_is_told_apart(
    context: Context, database: Database, clock: FakeClock
) -> None:
    worker, scheduler = (Heart(database, clock, kind) for kind in (ProcessKind.WORKER, ProcessKind.SCHEDULER))
    worker.note_task()
    for _ in range(3):
        clock.advance(30)
        worker.beat()
        scheduler.beat()
    assert states(context) == {"scheduler": "alive", "worker": "idle"}
    worker.note_task()
    worker.beat()
    assert states(context) == {"scheduler": "alive", "worker": "alive"}
    clock.advance(90)
    worker.beat()
    assert states(context) == {"scheduler": "silent", "worker": "alive"}, "nothing ticks, so there is nothing to take"


def test_rows_that_nobody_claims_are_counted(context: Context, database: Database, clock: FakeClock) -> None:
    now = clock.now()

    def download(commit: str, **columns: object) -> Download:
        values = {"endpoint": "http://hub", "model": "org/m", "commit_sha": commit, "created_at": now, "queued_at": now}
        return Download.model_validate({**values, "next_attempt_at": now, **columns})

    with database.transaction() as session:
        session.add(download("a"))
        session.add(download("b", state="done"))
        session.add(download("c", location="elsewhere"))
        session.add(download("d", lease_token=download("e").id, lease_expires_at=now + timedelta(hours=1)))
    clock.advance(59)
    assert workers(context).waiting.downloads == 0
    clock.advance(2)
    waiting = workers(context).waiting
    assert (waiting.downloads, waiting.instances) == (1, 0)
    assert "older than 60 s" in waiting.words
