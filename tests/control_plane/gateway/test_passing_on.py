"""Engines that load, drain, are gone or are somebody else: the next one answers, and the reconciler is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from control_plane.gateway import suspicion
from control_plane.instances import repository
from control_plane.instances.schemas import InstanceView
from tests.support.instances import STARTER, Plant

#: Which engine is asked is decided outside the database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

CHAT = {"model": STARTER, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(autouse=True)
def _nothing_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspicion, "_told", {})


class Refusing(BaseHTTPRequestHandler):
    """An engine that answers every request alike."""

    answer: tuple[int, object] = (503, {})
    requests = 0

    def do_POST(self) -> None:
        type(self).requests += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        status, value = self.answer
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The test looks at what it counts."""


@contextmanager
def refusing(status: int, value: object) -> Iterator[tuple[str, type[Refusing]]]:
    """The URL of such an engine."""
    handler = type("Handler", (Refusing,), {"answer": (status, value), "requests": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()
            thread.join()


def _point(plant: Plant, instance: InstanceView, ordinal: int, url: str) -> None:
    with plant.context.database.transaction() as session:
        repository.update_replica(session, plant.replicas(instance.id)[ordinal].id, {"url": url})


def _status(code: str) -> dict[str, object]:
    return {"error": {"message": f"The server is {code}.", "code": code, "type": "x", "param": None}}


@pytest.mark.parametrize("answer", [(503, _status("draining")), (503, _status("loading")), (401, b"who are you?")])
def test_what_has_not_begun_is_passed_on(
    client: httpx.Client, running: Callable[..., InstanceView], plant: Plant, answer: tuple[int, object]
) -> None:
    instance = running()  # with a real engine behind its first replica …
    second = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(second.id, "running")
    real = plant.get(instance.id).replicas[0].url or ""
    with refusing(*answer) as (url, engine):
        _point(plant, second, 0, url)
        _point(plant, second, 1, real)
        _as_boot_of(plant, second, instance)
        for _ in range(24):  # … of two, one of which is asked first by chance
            assert client.post(f"/i/{second.slug}/v1/chat/completions", json=CHAT).status_code == 200
        assert engine.requests > 0, "the refusing engine was tried"
    assert ("instances.reconcile", second.id) in plant.hints[-1:]
    assert plant.row(second.id).next_attempt_at == plant.clock.now(), "it is looked at now"


def _as_boot_of(plant: Plant, second: InstanceView, first: InstanceView) -> None:
    """Give the second replica the name and boot of the real engine, whose key those make."""
    (engine,) = plant.replicas(first.id)
    with plant.context.database.transaction() as session:
        mine = session.merge(engine)
        mine.resource_name = "elsewhere"
        session.flush()
        other = session.merge(plant.replicas(second.id)[1])
        other.resource_name, other.boot_token = engine.resource_name, engine.boot_token


def test_alone_it_says_that_nobody_answers(client: httpx.Client, running: object, plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.hints.clear()
    with refusing(503, _status("draining")) as (url, _):
        _point(plant, launched, 0, url)
        answer = client.post(f"/i/{launched.slug}/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json()["error"]["code"] == "instance_not_running"
    assert plant.hints == [("instances.reconcile", launched.id)]
    for _ in range(5):
        client.post(f"/i/{launched.slug}/v1/chat/completions", json=CHAT)
    assert plant.hints == [("instances.reconcile", launched.id)], "callers that insist cost nothing more"


@pytest.mark.parametrize("body", [_status("stalled"), b"not json", b"x" * (80 << 10)])
def test_what_may_have_begun_is_never_sent_twice(client: httpx.Client, plant: Plant, body: object) -> None:
    launched = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(launched.id, "running")
    with refusing(503, body) as (url, engine):
        for ordinal in range(2):
            _point(plant, launched, ordinal, url)
        answer = client.post(f"/i/{launched.slug}/v1/chat/completions", json=CHAT)
        assert answer.status_code == 503
        assert answer.content == (body if isinstance(body, bytes) else json.dumps(body).encode()), "as it came"
        assert engine.requests == 1


def test_a_retiring_engine_gets_nothing_new(client: httpx.Client, plant: Plant) -> None:
    launched = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(launched.id, "running")
    with refusing(200, {"id": 1}) as (old, old_engine), refusing(200, {"id": 2}) as (new, new_engine):
        _point(plant, launched, 0, old)
        _point(plant, launched, 1, new)
        with plant.context.database.transaction() as session:
            retired = {"retiring_since": plant.clock.now()}
            repository.update_replica(session, plant.replicas(launched.id)[0].id, retired)  # type: ignore[arg-type]
        for _ in range(10):
            assert client.post(f"/i/{launched.slug}/v1/chat/completions", json=CHAT).json() == {"id": 2}
        assert (old_engine.requests, new_engine.requests) == (0, 10)
