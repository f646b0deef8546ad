"""The keys page."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.web.conftest import Browser
from tests.web.html import read


def test_a_key_is_shown_once_and_works(browser: Browser, stranger: TestClient) -> None:
    page = browser.read_page("/keys")
    assert "slipway keys create" not in page.text  # the operator's key of this machine is there already
    page.button("Create key")
    shown = read(browser.send(page.one("form", action="/keys"), name="notebook").text)
    key = shown.labelled("New key")["value"]
    assert key.startswith("sk-slip-")
    assert key not in browser.get("/keys").text
    stranger.cookies.clear()
    me = stranger.get("/api/v1/me", headers={"Authorization": f"Bearer {key}"})
    assert me.json()["via"] == "key"


def test_a_key_without_a_name_is_refused_beside_the_field(browser: Browser) -> None:
    answer = browser.send(browser.read_page("/keys").one("form", action="/keys"), name="")
    assert answer.status_code == 422
    field = read(answer.text).labelled("Name")
    assert field["aria-invalid"] == "true"
    assert "name" in read(answer.text).one(id=field["aria-describedby"].split()[0]).text


def test_revoking_ends_a_key(browser: Browser, stranger: TestClient) -> None:
    shown = read(browser.send(browser.read_page("/keys").one("form", action="/keys"), name="old").text)
    key = shown.labelled("New key")["value"]
    page = browser.read_page("/keys")
    page.button("Revoke old")
    form = next(
        form for form in page.all("form") if form["action"].endswith("/revoke") and "Revoke old" in form.buttons()
    )
    after = read(browser.send(form).text)
    assert "Revoke old" not in after.buttons()
    assert "revoked" in after.text
    headers = {"Authorization": f"Bearer {key}"}
    assert TestClient(stranger.app).get("/api/v1/me", headers=headers).status_code == 401
