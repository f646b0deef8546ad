"""A database of the first release, with rows in every phase, becomes one of today's, on both databases."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from control_plane.accounts.cookies import SESSION_COOKIE
from control_plane.accounts.principal import Principal
from control_plane.database import Database
from control_plane.downloads import service as downloads
from control_plane.errors import Conflict
from control_plane.instances import service
from control_plane.instances.reconcile import sweep
from control_plane.migrate import check, downgrade, is_current, upgrade
from control_plane.providers.base import ReplicaSpec, Weights
from tests.control_plane import first_schema
from tests.control_plane.first_schema import PHASES, STARTED, id_of
from tests.support.clock import FakeClock
from tests.support.instances import Plant
from web.app import create_app


@pytest.fixture(params=["sqlite", "postgresql"])
def old_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with the first release's schema and rows."""
    if request.param == "sqlite":
        url, drop = f"sqlite:///{tmp_path / 'old.db'}", None
    else:
        server, name = request.getfixturevalue("postgres_server"), f"old_{uuid4().hex[:12]}"
        admin = sa.create_engine(server.format(database="postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
        url, drop = server.format(database=name), (admin, name)
    upgrade(url, first_schema.REVISION)
    database = Database(url)
    with database.engine.begin() as connection:
        first_schema.insert(connection, first_schema.rows())
    database.engine.dispose()
    yield url
    if drop:
        with drop[0].connect() as connection:
            connection.execute(sa.text(f'DROP DATABASE "{drop[1]}" WITH (FORCE)'))
        drop[0].dispose()


@pytest.fixture
def old(old_url: str) -> Iterator[Database]:
    """That database, to look at."""
    database = Database(old_url)
    yield database
    database.engine.dispose()


@pytest.fixture
def plant(old: Database, old_url: str, clock: FakeClock, tmp_path: Path) -> Plant:
    """Today's control plane on that database, migrated; the engines of the first release still run."""
    upgrade(old_url)
    plant = Plant.make(old, old_url, clock, tmp_path)
    grace = Principal(id_of("user"), id_of("team"), "Grace", is_admin=True, via="session", actor="user:grace")
    for phase in STARTED:
        name = f"slipway-{id_of(f'instance {phase}').hex}-0"
        weights = Weights("slipway/starter", "", tmp_path)
        plant.provider.create(
            ReplicaSpec(name, "test", weights, "slipway/starter", "fake-cpu", "key", f"boot of {phase}")
        )
    return replace(plant, principal=grace)


def test_every_row_survives_the_way_up_and_down(old: Database, old_url: str) -> None:
    before = first_schema.rows()
    upgrade(old_url)
    check(old_url)
    with old.engine.connect() as connection:
        assert first_schema.read(connection, before) == before
    downgrade(old_url, first_schema.REVISION)
    with old.engine.connect() as connection:
        assert first_schema.read(connection, before) == before
    upgrade(old_url)
    assert is_current(old_url)


def test_two_upgrades_at_once_are_one(old: Database, old_url: str) -> None:
    code = "import sys; from control_plane.migrate import upgrade; upgrade(sys.argv[1])"
    argv = [sys.executable, "-c", code, old_url]
    both = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert is_current(old_url)
    with old.engine.connect() as connection:
        assert first_schema.read(connection, first_schema.rows()) == first_schema.rows()


def test_keys_and_sessions_go_on_and_every_phase_is_shown(plant: Plant) -> None:
    with TestClient(create_app(plant.context)) as client:
        key = {"Authorization": f"Bearer {first_schema.API_KEY}"}
        answer = client.get("/api/v1/instances", headers=key)
        assert answer.status_code == 200, answer.text
        shown = {item["name"]: item["phase"] for item in answer.json()["items"]}
        assert shown == {phase: phase for phase in PHASES}
        client.cookies.set(SESSION_COOKIE, first_schema.SESSION_TOKEN)
        for path in ("/instances", *(f"/instances/{id_of(f'instance {phase}')}" for phase in PHASES)):
            assert client.get(path).status_code == 200, path


def test_the_reconciler_goes_on_where_the_first_release_stopped(plant: Plant) -> None:
    assert set(sweep(plant.context)) >= {
        id_of(f"instance {phase}") for phase in PHASES if phase not in first_schema.RESTING
    }
    ends = {
        **dict.fromkeys(("requested", "provisioning", "starting", "running"), "running"),
        **{"failed": "failed", "stopping": "stopped", "stopped": "stopped"},
        **{"terminating": "terminated", "terminated": "terminated", "sleeping": "sleeping"},
    }
    for phase, end in ends.items():
        assert plant.run_until(id_of(f"instance {phase}"), end).phase == end
    # The weights are on their way: the download's dead worker is replaced by another.
    waiting = id_of("instance downloading")
    plant.reconcile(waiting)
    assert plant.get(waiting).phase == "downloading"
    due = {id_of(f"download {state}") for state in ("queued", "downloading", "verifying")}
    assert set(downloads.sweep(plant.context)) == due
    # What was running has not been started anew, and what rests can be started.
    assert plant.replicas(id_of("instance running"))[0].boot_token == "boot of running"
    service.start(plant.context, plant.principal, id_of("instance stopped"))
    plant.run_until(id_of("instance stopped"), "running")
    service.terminate(plant.context, plant.principal, id_of("instance running"))
    plant.run_until(id_of("instance running"), "terminated")


def test_an_upgrade_that_would_break_references_is_undone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    upgrade(url, first_schema.REVISION)
    content = first_schema.rows()
    with sqlite3.connect(tmp_path / "old.db") as connection:  # as a tool that does not enforce foreign keys
        connection.execute(
            "INSERT INTO membership (id, user_id, team_id, role) VALUES (?, ?, ?, ?)",
            (id_of("membership").hex, id_of("user").hex, id_of("team").hex, content["membership"][0]["role"]),
        )
    with pytest.raises(RuntimeError, match="membership"):
        upgrade(url)
    assert not is_current(url)
    with sqlite3.connect(tmp_path / "old.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (first_schema.REVISION,)


@pytest.fixture
def from_the_future(plant: Plant) -> UUID:
    """An instance in a phase, and with a download in a state, that a newer release has added."""
    instance_id = id_of("instance downloading")
    with plant.context.database.transaction() as session:
        session.execute(
            sa.text("UPDATE instance SET phase = 'hibernating', desired = 'dreaming' WHERE id = :id").bindparams(
                sa.bindparam("id", instance_id, sa.Uuid())
            )
        )
        session.execute(sa.text("UPDATE download SET state = 'thawing'"))
        session.execute(sa.text("UPDATE membership SET role = 'auditor'"))
    return instance_id


def test_unknown_values_of_a_newer_release_are_shown_and_left_alone(plant: Plant, from_the_future: UUID) -> None:
    before = plant.row(from_the_future).model_dump(exclude={"next_attempt_at"})
    sweep(plant.context)
    downloads.sweep(plant.context)
    plant.reconcile(from_the_future)
    plant.clock.advance(3600)
    plant.reconcile(from_the_future)
    after = plant.row(from_the_future)
    assert after.model_dump(exclude={"next_attempt_at"}) == before
    assert after.next_attempt_at is not None, "the newer release must find it again"
    for act in (service.stop, service.start, service.restart, service.terminate):
        with pytest.raises(Conflict, match="hibernating"):
            act(plant.context, plant.principal, from_the_future)
    with TestClient(create_app(plant.context)) as client:
        client.cookies.set(SESSION_COOKIE, first_schema.SESSION_TOKEN)
        assert "hibernating" in client.get("/instances").text
        page = client.get(f"/instances/{from_the_future}")
        assert page.status_code == 200
        assert "hibernating" in page.text
    with plant.context.database.reading() as session:
        shown = downloads.find_progress(session, plant.context, id_of("download downloading"))
    assert shown is not None
    assert shown.state == "thawing"
