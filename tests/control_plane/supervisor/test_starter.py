"""The starter is launched once, waited for, and left alone when its owner stopped it."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.supervisor.announcement import Announcement
from control_plane.supervisor.starter import Starter, StarterRefused, curl_line, ensure_running


class Api:
    """The instances API, as far as the starter needs it: one page per instance, phases that move at each look."""

    def __init__(self, instances: list[dict[str, Any]], phases: list[str]) -> None:
        self.instances = instances
        self.phases = phases
        self.launched: list[dict[str, Any]] = []
        self.refusal: dict[str, Any] | None = None
        #: What the API URL answers first; 200 afterwards.
        self.answers: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            if self.refusal is not None:
                return httpx.Response(422, json=self.refusal)
            self.launched.append(json.loads(request.content))
            return httpx.Response(202, json=instance("new", "starter", "requested"))
        if request.url.path.endswith("/ready"):
            assert request.url.path.startswith("/i/slug-of-")
            return httpx.Response(self.answers.pop(0) if self.answers else 200)
        if request.url.path == "/api/v1/instances":
            position = int(request.url.params.get("cursor", 0))
            following = str(position + 1) if position + 1 < len(self.instances) else None
            items = self.instances[position : position + 1]
            return httpx.Response(200, json={"items": items, "next_cursor": following})
        phase = self.phases.pop(0)
        return httpx.Response(200, json=instance(request.url.path.rpartition("/")[2], "starter", phase))


def instance(identifier: str, name: str, phase: str) -> dict[str, Any]:
    return {
        "id": identifier,
        "name": name,
        "slug": f"slug-of-{identifier}",
        "model": "slipway/starter",
        "phase": phase,
        "reason": f"why {phase}",
        "next_step": None,
        "api_url": f"http://here/i/{identifier}/v1",
    }


def ensure(api: Api) -> tuple[Starter, list[str]]:
    said: list[str] = []

    async def scenario() -> Starter:
        async with httpx.AsyncClient(base_url="http://here", transport=httpx.MockTransport(api)) as client:
            return await ensure_running(client, said.append)

    return asyncio.run(scenario()), said


def test_it_is_launched_and_waited_for() -> None:
    api = Api([instance("1", "other", "running")], ["provisioning", "running"])
    starter, said = ensure(api)
    assert api.launched == [{"model": "slipway/starter", "name": "starter"}]
    assert starter.running
    assert starter.api_url == "http://here/i/new/v1"
    assert said == ["starter: requested (why requested)", "starter: provisioning (why provisioning)"]


def test_the_one_that_is_there_is_found_on_any_page_and_waited_for() -> None:
    api = Api([instance("1", "other", "running"), instance("2", "starter", "starting")], ["running"])
    starter, _ = ensure(api)
    assert api.launched == []
    assert starter.api_url == "http://here/i/2/v1"


def test_a_terminated_one_does_not_count_and_a_stopped_one_stays_stopped() -> None:
    stopped = Api([instance("1", "starter", "terminated"), instance("2", "starter", "stopped")], [])
    starter, _ = ensure(stopped)
    assert stopped.launched == []
    assert (starter.phase, starter.running) == ("stopped", False)


def test_a_row_that_says_running_is_not_believed_before_the_api_url_answers() -> None:
    api = Api([instance("1", "starter", "running")], ["provisioning", "running"])
    api.answers = [503]
    starter, said = ensure(api)
    assert starter.running
    assert said == ["starter: running (why running)", "starter: provisioning (why provisioning)"]


def test_a_refusal_says_why_and_what_to_do() -> None:
    api = Api([], [])
    api.refusal = {"detail": "nothing fits.", "next_step": "Free some memory."}
    with pytest.raises(StarterRefused, match=r"nothing fits\. Free some memory\."):
        ensure(api)


def test_the_curl_line_is_one_argument_list_even_with_a_difficult_path() -> None:
    starter = Starter("starter", "slipway/starter", "running", "", None, "http://here/i/x/v1", running=True)
    argv = shlex.split(curl_line(starter, Path("/a b/it's/client.header")))
    assert argv[0] == "curl"
    assert "@/a b/it's/client.header" in argv
    assert json.loads(argv[argv.index("-d") + 1])["model"] == "slipway/starter"


def test_the_announcement_says_only_what_there_is() -> None:
    everything = Announcement("http://here", "http://here/setup?token=t", "running", "http://here/i/x/v1", "curl x")
    assert "http://here/setup?token=t" in everything.text()
    assert "  curl x" in everything.text()
    little = Announcement("http://here", None, "failed: no room", None, None).text()
    assert "set-up" not in little
    assert "failed: no room" in little
    assert "None" not in little
