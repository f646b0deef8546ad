"""Live updates: fragments over a real connection, sent when something changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from control_plane.accounts.cookies import SESSION_COOKIE
from control_plane.context import Context
from control_plane.instances.lifecycle import Phase, transition
from control_plane.instances.tables import Instance
from control_plane.reaper.tables import Orphan
from tests.support.processes import eventually
from tests.web.conftest import Browser
from tests.web.html import read


@pytest.fixture
def server(app: FastAPI) -> Iterator[str]:
    """The application behind a real socket."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started, "the server listens")
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """(event, data) of a stream."""
    name, data = "", []
    for line in lines:
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:])
        elif not line and name:
            yield name, "\n".join(data)
            name, data = "", []


def test_a_change_reaches_the_page(
    server: str, browser: Browser, context: Context, add_instance: Callable[..., Instance]
) -> None:
    instance = add_instance(phase="starting", reason="loading")
    cookies = {SESSION_COOKIE: browser.client.cookies[SESSION_COOKIE]}
    with httpx.Client(base_url=server, cookies=cookies, timeout=30, trust_env=False) as client:
        with client.stream("GET", f"/instances/{instance.id}/live") as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            arriving = events(stream.iter_lines())
            first = dict(next(arriving) for _ in range(2))
            assert "starting" in read(first["head"]).text
            assert "loading" in read(first["overview"]).text
            with context.database.transaction() as session:
                row = session.get_one(Instance, instance.id)
                transition(session, context.clock, row, Phase.RUNNING, reason="it answers", actor="system:test")
            second = dict(next(arriving) for _ in range(2))
            assert "running" in read(second["head"]).text
            assert "it answers" in read(second["overview"]).text
        with client.stream("GET", "/instances/live") as stream:
            name, rows = next(events(stream.iter_lines()))
            assert name == "instances"
            assert "llama" in read(rows).text


def test_an_orphan_appears_on_the_page(server: str, browser: Browser, add_orphan: Callable[..., Orphan]) -> None:
    cookies = {SESSION_COOKIE: browser.client.cookies[SESSION_COOKIE]}
    with (
        httpx.Client(base_url=server, cookies=cookies, timeout=30, trust_env=False) as client,
        client.stream("GET", "/admin/orphans/live") as stream,
    ):
        arriving = events(stream.iter_lines())
        name, first = next(arriving)
        assert name == "orphans"
        assert "Nothing is unmatched" in read(first).text
        orphan = add_orphan()
        assert orphan.name in read(next(arriving)[1]).text
    with (
        httpx.Client(base_url=server, cookies=cookies, timeout=30, trust_env=False) as client,
        client.stream("GET", "/admin/workers/live") as stream,
    ):
        assert next(events(stream.iter_lines()))[0] == "workers"


def test_the_stream_ends_with_the_session(server: str, browser: Browser, add_instance: Callable[..., Instance]) -> None:
    instance = add_instance()
    cookies = {SESSION_COOKIE: browser.client.cookies[SESSION_COOKIE]}
    with httpx.Client(base_url=server, cookies=cookies, timeout=30, trust_env=False) as client:
        with client.stream("GET", f"/instances/{instance.id}/live") as stream:
            arriving = events(stream.iter_lines())
            next(arriving)
            browser.send(browser.read_page("/keys").one("form", action="/logout"))
            for _ in arriving:
                pass  # ends by itself, or the test times out
        again = client.get(f"/instances/{instance.id}/live", headers={"Accept": "text/event-stream"})
        assert again.status_code == 401
