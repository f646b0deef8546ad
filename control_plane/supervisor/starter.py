"""The starter instance: launched through the REST API like any other, so that the whole path is tried at each start."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx

STARTER_MODEL = "slipway/starter"
STARTER_NAME = "starter"

_POLL_S = 0.25
_WAIT_S = 180.0
_RESTING = frozenset({"failed", "stopped", "terminated"})


class Starter(NamedTuple):
    """The starter instance as the API showed it last. ``running`` means that its API URL answered."""

    name: str
    model: str
    phase: str
    reason: str
    next_step: str | None
    api_url: str
    running: bool


class StarterRefused(Exception):
    """The API would not launch it; the message says why and what to do."""


async def ensure_running(client: httpx.AsyncClient, report: Callable[[str], None]) -> Starter:
    """Launch the starter unless it is there, and wait until it runs or it is clear that it will not.

    One that the user has stopped stays stopped.

    :param client: authenticated, with the server's address as its base.
    :raises StarterRefused: the API refused the launch.
    """
    instance = await _find(client) or await _launch(client)
    loop = asyncio.get_running_loop()
    deadline, shown = loop.time() + _WAIT_S, ""
    while not (running := await _answers(client, instance)):
        if instance["phase"] in _RESTING or loop.time() >= deadline:
            break
        if instance["phase"] != shown:
            shown = instance["phase"]
            report(f"starter: {shown} ({instance['reason']})")
        await asyncio.sleep(_POLL_S)
        instance = _body(await client.get(f"/api/v1/instances/{instance['id']}"))
    fields = {name: instance[name] for name in Starter._fields if name != "running"}
    return Starter(**fields, running=running)


async def _answers(client: httpx.AsyncClient, instance: dict[str, Any]) -> bool:
    """Whether the instance runs, and not only by its row: after a crash of everything the row says "running" until a
    reconciler has looked again."""
    if instance["phase"] != "running":
        return False
    return (await client.get(f"/i/{instance['slug']}/ready")).is_success


async def _find(client: httpx.AsyncClient) -> dict[str, Any] | None:
    cursor: str | None = None
    while True:
        page = _body(await client.get("/api/v1/instances", params={"cursor": cursor} if cursor else None))
        for instance in page["items"]:
            if instance["name"] == STARTER_NAME and instance["phase"] not in {"terminating", "terminated"}:
                return dict(instance)
        cursor = page["next_cursor"]
        if cursor is None:
            return None


async def _launch(client: httpx.AsyncClient) -> dict[str, Any]:
    return _body(await client.post("/api/v1/instances", json={"model": STARTER_MODEL, "name": STARTER_NAME}))


def _body(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    if response.is_success:
        return dict(body)
    raise StarterRefused(f"{body.get('detail', response.reason_phrase)} {body.get('next_step', '')}".strip())


def curl_line(starter: Starter, header_file: Path) -> str:
    """A command that asks the starter something. The key is read from ``header_file``, so that none is shown."""
    question = {"model": starter.model, "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 64}
    argv = [
        *("curl", "-sS", f"{starter.api_url}/chat/completions", "-H", f"@{header_file}"),
        *("-H", "Content-Type: application/json", "-d", json.dumps(question)),
    ]
    return shlex.join(argv)
