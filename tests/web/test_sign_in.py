"""Coming in: the set-up link, the sign-in page, and nowhere else."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.web.conftest import EMAIL, PASSWORD, Browser
from tests.web.html import read

PAGES = ["/", "/launch", "/launch/cards", "/launch/choice", "/instances", "/keys", "/audit", f"/instances/{'0' * 32}"]


def test_the_setup_link_makes_one_account_and_works_once(stranger: TestClient, setup_token: str) -> None:
    form = read(stranger.get(f"/setup?token={setup_token}").text).one("form")
    answer = stranger.post("/setup", data=form.fields() | {"email": EMAIL, "name": "Ada", "password": PASSWORD})
    assert answer.url.path == "/"
    assert stranger.get("/api/v1/me").json()["email"] == EMAIL
    again = stranger.get(f"/setup?token={setup_token}")
    assert again.status_code == 403
    assert "not valid" in read(again.text).one(role="alert").text
    assert not read(again.text).all("form", action="/setup")


def test_a_setup_form_with_an_error_keeps_what_was_typed(stranger: TestClient, setup_token: str) -> None:
    form = read(stranger.get(f"/setup?token={setup_token}").text).one("form")
    answer = stranger.post("/setup", data=form.fields() | {"email": EMAIL, "name": "Ada <3", "password": "short"})
    assert answer.status_code == 422
    page = read(answer.text)
    assert page.labelled("E-mail address")["value"] == EMAIL
    assert page.labelled("Name")["value"] == "Ada <3"
    assert page.labelled("Password").get("value") in {None, ""}
    assert "12" in page.one(role="alert").text
    assert stranger.post("/setup", data=page.one("form").fields() | {"password": PASSWORD}).url.path == "/"


def test_pages_ask_strangers_to_sign_in(stranger: TestClient) -> None:
    for path in PAGES:
        answer = stranger.get(path, follow_redirects=False)
        assert answer.status_code == 303, path
        assert answer.headers["Location"].startswith("/login"), path


def test_signing_in_leads_to_what_was_asked_for(browser: Browser, stranger: TestClient) -> None:
    stranger.cookies.clear()
    answer = stranger.get("/launch?q=llama&family=Llama")
    form = read(answer.text).one("form")
    answer = stranger.post("/login", data=form.fields() | {"email": EMAIL, "password": PASSWORD})
    assert str(answer.url).endswith("/launch?q=llama&family=Llama")


def test_signing_in_leads_nowhere_else(browser: Browser, stranger: TestClient) -> None:
    for target in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\n/evil.example",
    ]:
        stranger.cookies.clear()
        form = read(stranger.get("/login", params={"next": target}).text).one("form")
        assert form.fields()["next"] == "/"
        typed = form.fields() | {"email": EMAIL, "password": PASSWORD, "next": target}
        answer = stranger.post("/login", data=typed, follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/"), target


def test_a_wrong_password_is_said_and_the_address_kept(browser: Browser, stranger: TestClient) -> None:
    stranger.cookies.clear()
    form = read(stranger.get("/login").text).one("form")
    answer = stranger.post("/login", data=form.fields() | {"email": EMAIL, "password": "wrong wrong wrong"})
    assert answer.status_code == 401
    page = read(answer.text)
    assert "wrong e-mail address or password" in page.one(role="alert").text
    assert page.labelled("E-mail address")["value"] == EMAIL
    assert "wrong wrong wrong" not in answer.text


def test_a_form_from_elsewhere_is_refused(browser: Browser, stranger: TestClient) -> None:
    stranger.cookies.clear()
    typed = {"email": EMAIL, "password": PASSWORD, "csrf_token": "0" * 64}
    assert stranger.post("/login", data=typed).status_code == 403
    stranger.get("/login")
    assert stranger.post("/login", data=typed).status_code == 403


def test_signing_out_ends_the_session(browser: Browser) -> None:
    form = browser.read_page("/keys").one("form", action="/logout")
    assert browser.send(form).url.path == "/login"
    assert browser.get("/keys").url.path == "/login"


def test_an_api_key_opens_no_page(browser: Browser, stranger: TestClient) -> None:
    page = read(browser.send(browser.read_page("/keys").one("form", action="/keys"), name="robot").text)
    key = page.labelled("New key")["value"]
    stranger.cookies.clear()
    answer = stranger.get("/keys", headers={"Authorization": f"Bearer {key}"}, follow_redirects=False)
    assert answer.status_code == 303
