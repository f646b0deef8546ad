"""REST of instances over a real server: verbs, problems, live events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from control_plane.accounts import api_keys
from control_plane.app import create_app
from control_plane.keys import replica_key
from tests.support.http import serving
from tests.support.instances import STARTER, Plant, add_principal


@pytest.fixture
def api(plant: Plant) -> Iterator[httpx.Client]:
    """A client with the team's key."""
    key = api_keys.create(plant.context, plant.principal, name="test").secret
    with (
        serving(create_app(plant.context)) as url,
        httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client,
    ):
        yield client


def _events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Event, data, id of each server-sent event."""
    event = {"event": "", "data": "", "id": ""}
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if line == "" and event["data"]:
            yield event["event"], json.loads(event["data"]), event["id"]
            event = {"event": "", "data": "", "id": ""}
        elif name in event:
            event[name] = value


def test_verbs(api: httpx.Client, plant: Plant) -> None:
    launched = api.post("/instances", json={"model": STARTER, "name": "chat"})
    assert launched.status_code == 202
    path = f"/instances/{launched.json()['id']}"
    assert api.get(path).json()["phase"] == "requested"
    assert api.get("/instances").json()["items"][0]["name"] == "chat"
    assert api.patch(path, json={"name": "talk"}).json()["name"] == "talk"
    for verb, body, phase, until in (
        ("stop", None, "stopping", "stopped"),
        ("start", None, "requested", "running"),
        ("restart", None, "running", "running"),
        ("restart", {"mode": "rolling"}, "running", "running"),
        ("restart", {"mode": "replace"}, "provisioning", "running"),
    ):
        answer = api.post(f"{path}/{verb}", json=body)
        assert (answer.status_code, answer.json()["phase"]) == (202, phase)
        plant.run_until(UUID(launched.json()["id"]), until)
    assert api.post(f"{path}/restart", json={"mode": "sideways"}).status_code == 422
    direct = api.get(f"{path}/direct-key").json()
    assert direct["direct_url"] == api.get(path).json()["direct_url"]
    (replica,) = plant.replicas(UUID(launched.json()["id"]))
    assert direct["api_key"] == replica_key(plant.context.settings, replica.resource_name, replica.boot_token)
    assert api.get(f"{path}/events").json()["items"][-1]["action"] == "instance.direct_key_read"
    assert api.delete(path).json()["phase"] == "terminating"
    assert api.get(f"{path}/downloads").json()["items"] == []


def test_problems(api: httpx.Client, plant: Plant) -> None:
    for method, path, status, code in (
        ("GET", f"/instances/{uuid4()}", 404, "not_found"),
        ("GET", f"/instances/{uuid4()}/logs", 404, "not_found"),
        ("GET", "/instances/not-a-uuid", 422, "invalid"),
        ("POST", f"/instances/{uuid4()}/stop", 404, "not_found"),
    ):
        answer = api.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["next_step"]
    for body in ({}, {"model": STARTER, "surprise": 1}, {"model": STARTER, "name": "-x"}, {"model": "a" * 201}):
        assert api.post("/instances", json=body).status_code == 422
    launched = plant.launch()
    assert api.get(f"/instances/{launched.id}/logs?replica=1").status_code == 404
    assert api.get(f"/instances/{launched.id}/metrics").status_code == 409
    assert api.get(f"/instances/{launched.id}", headers={"Authorization": "Bearer no"}).status_code == 401
    stranger = api_keys.create(plant.context, add_principal(plant.context, "eve"), name="hers").secret
    for path in ("", "/events", "/logs", "/metrics", "/downloads", "/direct-key"):
        answer = api.get(f"/instances/{launched.id}{path}", headers={"Authorization": f"Bearer {stranger}"})
        assert answer.status_code == 404


def test_events_tell_every_change_and_go_on_after_a_break(api: httpx.Client, plant: Plant) -> None:
    launched = plant.launch()
    path, live = f"/instances/{launched.id}/events", {"Accept": "text/event-stream"}
    with api.stream("GET", path, headers=live) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        events = _events(response)
        told, phases = [], [next(events)[1]["phase"]]
        plant.run_until(launched.id, "running")
        while phases[-1] != "running" or not told or told[-1][1]["action"] != "instance.running":
            event, data, identity = next(events)
            if event == "state":
                phases.append(data["phase"])
            else:
                told.append((event, data, identity))
    assert phases[0] == "requested"
    assert [data["action"] for _, data, _ in told] == plant.timeline(launched.id)

    plant.provider.exit(plant.name_of(launched.id), -9)
    plant.run_until(launched.id, "provisioning")
    with api.stream("GET", path, headers=live | {"Last-Event-ID": told[-1][2]}) as response:
        events = _events(response)
        assert next(events)[1]["phase"] == "provisioning"
        assert next(events)[1]["action"] == "instance.provisioning", "what was told before is not told again"


def test_logs_are_read_on_from_where_one_was(api: httpx.Client, plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    name, path = plant.name_of(launched.id), f"/instances/{launched.id}/logs"
    plant.provider.log[name] = "one\ntwo\n"
    tail = api.get(path).json()
    assert tail == {"replica": 0, "text": "one\ntwo\n", "next_offset": 8}
    plant.provider.log[name] += "three\n"
    assert api.get(path, params={"offset": tail["next_offset"]}).json()["text"] == "three\n"
    with api.stream("GET", path, headers={"Accept": "text/event-stream", "Last-Event-ID": "8"}) as response:
        events = _events(response)
        assert next(events)[1]["text"] == "three\n"
        plant.provider.log[name] += "four\n"
        event, data, identity = next(events)
    assert (event, data["text"], identity) == ("log", "four\n", "19")
