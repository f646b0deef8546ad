"""Serving goes on while the database is away, by what was known when it last answered."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from control_plane.accounts import api_keys
from control_plane.app import create_gateway
from control_plane.database import Database
from control_plane.errors import NotFound
from control_plane.gateway.memory import DatabaseAway, Memory
from control_plane.migrate import upgrade
from control_plane.providers.local import LocalProvider
from tests.control_plane.gateway.conftest import run_an_engine
from tests.support.clock import FakeClock
from tests.support.http import serving
from tests.support.instances import Plant
from tests.support.postgres import postgres_server
from tests.support.processes import eventually


class Seconds:
    """A monotonic clock."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def away() -> str:
    raise OperationalError("SELECT", {}, Exception("connection refused"))


def test_what_was_asked_lately_is_known_while_the_database_is_away() -> None:
    seconds = Seconds()
    memory = Memory(stale_s=60, monotonic=seconds)
    assert memory.ask(("key", "a"), lambda: "ada") == "ada"
    assert memory.ask(("key", "a"), away) == "ada"
    with pytest.raises(DatabaseAway):
        memory.ask(("key", "never seen"), away)
    seconds.now = 61
    with pytest.raises(DatabaseAway):
        memory.ask(("key", "a"), away)


def test_after_a_failure_the_database_is_left_alone_for_a_second() -> None:
    seconds, asked = Seconds(), list[float]()
    memory = Memory(stale_s=60, monotonic=seconds)
    memory.ask(("key", "a"), lambda: "ada")

    def question() -> str:
        asked.append(seconds.now)
        return away()

    for at in (1.0, 1.5, 1.9, 2.1):
        seconds.now = at
        assert memory.ask(("key", "a"), question) == "ada"
    assert asked == [1.0, 2.1]


def test_a_refusal_is_an_answer_and_ends_what_was_known() -> None:
    memory = Memory(stale_s=60)
    memory.ask(("key", "a"), lambda: "ada")

    def revoked() -> str:
        raise NotFound("revoked")

    with pytest.raises(NotFound):
        memory.ask(("key", "a"), revoked)
    with pytest.raises(DatabaseAway):
        memory.ask(("key", "a"), away)


def test_a_gateway_answers_while_postgresql_is_down(engines: LocalProvider, clock: FakeClock, tmp_path: Path) -> None:
    with postgres_server() as server:
        url = server.url.format(database="postgres")
        upgrade(url)
        plant = Plant.make(Database(url), url, clock, tmp_path)
        instance = run_an_engine(plant, engines, tmp_path)
        known, unknown = (api_keys.create(plant.context, plant.principal, name=name).secret for name in ("one", "two"))
        with serving(create_gateway(plant.context)) as base, httpx.Client(base_url=base, trust_env=False) as client:

            def ask(key: str, path: str = f"/i/{instance.slug}/v1/models") -> int:
                return client.get(path, headers={"Authorization": f"Bearer {key}"}, timeout=30).status_code

            assert client.get("/readyz").status_code == 200
            assert ask(known) == 200
            server.stop()
            assert ask(known) == 200
            assert ask(unknown) == 503, "it is not said to be wrong: nobody knows"
            assert ask(known, "/i/another/v1/models") == 503
            assert client.get("/readyz").status_code == 200
            assert client.get("/api/v1/instances").status_code == 404, "a gateway has no REST API"
            server.start()
            eventually(lambda: ask(unknown) == 200, "the database is asked again")
            assert ask(known, "/i/another/v1/models") == 404
