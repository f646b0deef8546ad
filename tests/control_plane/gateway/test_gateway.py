"""API URLs: who gets through, to which engine, and what the caller sees when something breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.client import HTTPConnection

import httpx
import openai
import pytest

from control_plane.accounts import api_keys
from control_plane.gateway import relay
from control_plane.instances import service
from control_plane.instances.schemas import InstanceView
from control_plane.providers.local import LocalProvider
from tests.support.instances import STARTER, Plant, add_principal
from tests.support.processes import eventually

Running = Callable[..., InstanceView]
CHAT = {"model": STARTER, "messages": [{"role": "user", "content": "Hi"}]}


def _error(response: httpx.Response) -> dict[str, object]:
    error = response.json()["error"]
    assert {"message", "type", "code", "param"} <= set(error)
    return dict(error)


def test_an_instance_by_its_url(client: httpx.Client, running: Running) -> None:
    slug = running().slug
    answer = client.post(f"/i/{slug}/v1/chat/completions?x=1", json=CHAT, headers={"X-Request-Id": "r-1"})
    assert answer.status_code == 200
    assert answer.json()["received"] == CHAT
    assert client.get(f"/i/{slug}/v1/models").json() == {"path": "/v1/models"}
    for operation in ("health", "ready", "metrics", "version"):
        assert client.get(f"/i/{slug}/{operation}").json() == {"path": f"/{operation}"}
    assert client.get(f"/i/{slug}/v1/a?b=c%20d").json() == {"path": "/v1/a?b=c%20d"}


def test_an_instance_by_its_model(client: httpx.Client, running: Running, plant: Plant) -> None:
    instance = running(name="chat")
    plant.launch(name="not there yet")
    for model in (STARTER, "chat", instance.slug):
        answer = client.post("/v1/chat/completions", json=CHAT | {"model": model})
        assert answer.json()["model"] == STARTER, "the engine is asked by the name it knows"
    listed = client.get("/v1/models").json()["data"]
    assert [(model["id"], model["root"]) for model in listed] == [("chat", STARTER)]
    assert client.get(f"/v1/models/{STARTER}").json() == listed[0]
    for body, status in ((b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"model": "who"}', 404)):
        refused = client.post("/v1/chat/completions", content=body)
        assert refused.status_code == status
        _error(refused)
    assert client.get("/v1/models/who").status_code == 404


def test_a_stream_comes_as_it_is_made(client: httpx.Client, running: Running) -> None:
    """Had it been buffered, the client could not leave in the middle and still have read something."""
    slug = running().slug
    with client.stream("POST", f"/i/{slug}/v1/chat/completions", json=CHAT | {"stream": True}) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        lines = [line for line in response.iter_lines() if line]
    assert lines == [*(f'data: {{"token": {n}}}' for n in range(3)), "data: [DONE]"]


def test_a_client_that_leaves_ends_the_engines_work(
    client: httpx.Client, running: Running, engines: LocalProvider, plant: Plant
) -> None:
    instance = running()
    endless = CHAT | {"stream": True, "max_tokens": 10_000}
    with client.stream("POST", f"/i/{instance.slug}/v1/chat/completions", json=endless) as response:
        assert next(response.iter_lines()) == 'data: {"token": 0}'
    name = plant.name_of(instance.id)
    eventually(lambda: "client disconnected" in engines.logs(name, tail_bytes=1 << 16), "the engine notices")


def test_a_client_that_leaves_before_the_answer_ends_the_engines_work(
    client: httpx.Client, running: Running, engines: LocalProvider, plant: Plant
) -> None:
    instance = running()
    with pytest.raises(httpx.ReadTimeout):
        client.post(f"/i/{instance.slug}/v1/chat/completions", json=CHAT | {"think_s": 60}, timeout=1)
    name = plant.name_of(instance.id)
    eventually(lambda: "client disconnected" in engines.logs(name, tail_bytes=1 << 16), "the engine notices")


def test_an_engine_that_dies_in_the_middle_says_so(client: httpx.Client, running: Running, server: str) -> None:
    slug = running().slug
    body = CHAT | {"stream": True, "max_tokens": 100, "die_after": 1}
    with client.stream("POST", f"/i/{slug}/v1/chat/completions", json=body) as response:
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events[:2] == ['{"token": 0}', '{"token": 1}']
    assert json.loads(events[2])["error"]["code"] == "engine_died"
    assert len(events) == 3

    answers = []

    def refused() -> bool:
        """Until the kernel has closed the dead engine's socket, a connection may still be accepted and then broken."""
        answers[:] = [client.post(f"/i/{slug}/v1/chat/completions", json=CHAT)]
        assert answers[0].status_code in {502, 503}
        return bool(answers[0].status_code == 503)

    eventually(refused, "nobody listens there any more")
    (answer,) = answers
    assert answer.headers["Retry-After"] == "2"
    assert "the engine does not answer" in str(_error(answer)["message"])


def test_openais_client_understands_the_broken_stream(client: httpx.Client, running: Running, server: str) -> None:
    instance = running()
    key = client.headers["Authorization"].removeprefix("Bearer ")
    peer = openai.OpenAI(base_url=f"{server}/i/{instance.slug}/v1", api_key=key, max_retries=0)
    stream = peer.chat.completions.create(
        model=STARTER, messages=[{"role": "user", "content": "Hi"}], stream=True, extra_body={"die_after": 1}
    )
    with pytest.raises(openai.APIError, match="ended in the middle of this answer"):
        list(stream)


def test_an_engine_that_dies_before_it_answers(
    client: httpx.Client, running: Running, engines: LocalProvider, plant: Plant
) -> None:
    instance = running()
    body = CHAT | {"die_after": 0}
    answer = client.post(f"/i/{instance.slug}/v1/chat/completions", json=body)
    assert (answer.status_code, _error(answer)["code"]) == (502, "engine_died")


def test_while_it_does_not_run_the_answer_says_why(client: httpx.Client, plant: Plant) -> None:
    launched = plant.launch()
    waiting = client.post(f"/i/{launched.slug}/v1/chat/completions", json=CHAT)
    assert (waiting.status_code, waiting.headers["Retry-After"]) == (503, "5")
    error = _error(waiting)
    assert (error["phase"], error["reason"]) == ("requested", "waiting for a worker")
    assert error["code"] == "instance_not_running"

    service.stop(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "stopped")
    stopped = client.post("/v1/chat/completions", json=CHAT)
    assert stopped.status_code == 503
    assert stopped.headers["x-should-retry"] == "false"
    assert "is stopped" in str(_error(stopped)["message"])

    service.terminate(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "terminated")
    assert client.post(f"/i/{launched.slug}/v1/chat/completions", json=CHAT).status_code == 404


def test_who_gets_through(client: httpx.Client, running: Running, plant: Plant, server: str) -> None:
    instance = running()
    path = f"/i/{instance.slug}/v1/chat/completions"
    with httpx.Client(base_url=server, trust_env=False) as nobody:
        for headers in ({}, {"Authorization": "Bearer sk-slip-wrong"}, {"Authorization": "Basic x"}):
            refused = nobody.post(path, json=CHAT, headers=headers)
            assert (refused.status_code, _error(refused)["code"]) == (401, "invalid_api_key")
            assert nobody.get("/v1/models", headers=headers).status_code == 401
    stranger = api_keys.create(plant.context, add_principal(plant.context, "eve"), name="hers").secret
    theirs = {"Authorization": f"Bearer {stranger}"}
    assert client.post(path, json=CHAT, headers=theirs).status_code == 404
    assert client.post("/v1/chat/completions", json=CHAT, headers=theirs).status_code == 404
    assert client.get("/v1/models", headers=theirs).json()["data"] == []


def test_paths_that_might_mean_something_else_further_on(client: httpx.Client, running: Running) -> None:
    slug = running().slug
    connection = HTTPConnection(client.base_url.host, client.base_url.port or 80)  # sends paths as they are
    for path in (
        "v1/../metrics",
        "v1/%2e%2e/metrics",
        "v1//x",
        "v1/a%2f..%2fb",
        "v1/a%00",
        "v1/a%0d%0ax",
        "v1/a?b/../c",
    ):
        connection.request("GET", f"/i/{slug}/{path}", headers=dict(client.headers))
        response = connection.getresponse()
        response.read()
        assert response.status == (200 if "?" in path else 404), path
    connection.close()


def test_a_body_that_is_too_large(client: httpx.Client, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_BODY_BYTES", 1 << 20)
    launched = plant.launch()
    answer = client.post(f"/i/{launched.slug}/v1/chat/completions", content=b"x" * ((1 << 20) + 1))
    assert (answer.status_code, _error(answer)["code"]) == (413, "request_too_large")
