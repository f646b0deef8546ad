"""What every page keeps to: no inline script or style, nothing unescaped, no form without its token."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from control_plane.instances.tables import Instance
from control_plane.reaper.tables import Orphan
from tests.web.conftest import Browser
from tests.web.html import read
from web.app import PAGES

HOSTILE = "<script>alert('x')</script>\"' {{7*7}}"
TABS = ["overview", "api", "logs", "metrics", "playground", "settings"]


@pytest.fixture
def paths(add_instance: Callable[..., Instance], add_orphan: Callable[..., Orphan], doubt: None) -> list[str]:
    """Every kind of page, with hostile values on it."""
    orphan = add_orphan(HOSTILE, reason=HOSTILE, labels={"model": HOSTILE, HOSTILE: HOSTILE}, trouble=HOSTILE)
    files = {f"{HOSTILE}.safetensors": (5, 10)}
    instance = add_instance(HOSTILE[:60], model=HOSTILE, reason=HOSTILE, phase="downloading", slug="x", files=files)
    failed = add_instance("failed", phase="failed", reason=HOSTILE, next_step=HOSTILE, slug="y")
    one = f"/instances/{instance.id}"
    return [
        *("/", "/instances?q=%3Cscript%3E&state=all", "/launch?q=%3Cscript%3E&model=%3Cscript%3E", "/launch/cards"),
        *(
            "/keys",
            "/audit",
            "/admin/orphans",
            "/admin/workers",
            f"/admin/orphans/{orphan.id}/delete",
            "/admin/providers/local/confirm-loss",
            f"/instances/{failed.id}",
            f"{one}/terminate",
            "/no-such-page",
            "/login",
            "/setup?token=x",
        ),
        *(f"{one}?tab={tab}" for tab in TABS),
    ]


def test_no_page_has_inline_script_or_style(browser: Browser, paths: list[str]) -> None:
    for path in paths:
        for element in read(browser.get(path).text).all():
            assert element.tag != "style", path
            assert element.tag != "script" or (element.get("src") and not element.text), path
            inline = [name for name in element.attributes if name == "style" or name.startswith(("on", "hx-on"))]
            assert not inline, (path, element)


def test_nothing_hostile_becomes_markup(browser: Browser, paths: list[str]) -> None:
    for path in paths:
        text = browser.get(path).text
        assert "<script>alert" not in text, path


def test_every_response_forbids_what_is_not_ours(browser: Browser, stranger: TestClient, paths: list[str]) -> None:
    for path in [*paths, "/static/none.css", "/api/v1/me", "/healthz"]:
        headers = browser.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy, path
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"


def test_pages_are_not_cached_and_assets_are(browser: Browser) -> None:
    page = browser.get("/keys")
    assert page.headers["Cache-Control"] == "no-store"
    sheet = read(page.text).one("link", rel="stylesheet")["href"]
    assert "immutable" in browser.get(sheet).headers["Cache-Control"]
    assert "no-store" not in browser.get(sheet).headers["Cache-Control"]


def test_every_form_on_every_page_carries_a_token(browser: Browser, paths: list[str]) -> None:
    for path in paths:
        for form in read(browser.get(path).text).all("form", method="post"):
            assert len(form.fields()["csrf_token"]) == 64, (path, form["action"])


def test_no_page_acts_without_a_token(browser: Browser) -> None:
    unsafe = [
        route.path.format(instance_id=uuid4(), key_id=uuid4(), orphan_id=uuid4(), provider="local")
        for part in PAGES
        for route in part.router.routes
        if isinstance(route, APIRoute) and "POST" in route.methods
    ]
    assert len(unsafe) >= 10
    for path in unsafe:
        assert browser.client.post(path, data={"csrf_token": "0" * 64}).status_code == 403, path
        assert browser.client.post(path).status_code == 403, path


def test_errors_are_pages_for_people_and_problems_for_programs(browser: Browser) -> None:
    missing = f"/instances/{uuid4()}"
    page = browser.read_page(missing, status=404)
    assert page.one("h1").text == "Not Found"
    answer = browser.get(f"/api/v1{missing}")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert browser.read_page("/nowhere", status=404).one(role="alert").text
    assert browser.read_page("/instances/not-an-id", status=422).one(role="alert").text


def test_a_crash_shows_no_trace(app: FastAPI, browser: Browser) -> None:
    def crash() -> None:
        raise RuntimeError("a secret of the inside")

    app.router.add_api_route("/crash", crash)
    client = TestClient(app, raise_server_exceptions=False, cookies=browser.client.cookies)
    answer = client.get("/crash")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert read(answer.text).one("h1").text == "Internal Server Error"
