"""The first administrator: the link works once, and only while there is no administrator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from control_plane.accounts import passwords, service
from control_plane.accounts.tables import User
from control_plane.context import Context
from tests.support.accounts import EMAIL, PASSWORD, Browser


def body(token: str | None, **changes: str) -> dict[str, str | None]:
    return {"token": token, "email": EMAIL, "name": "Ada", "password": PASSWORD} | changes


def test_the_link_makes_an_administrator_who_is_signed_in(context: Context, browser: Browser) -> None:
    token = service.bootstrap(context).setup_token
    assert token is not None
    assert service.setup_is_open(context, token)
    client = browser()

    response = client.post("/setup", json=body(token, email="  Ada@Example.ORG "))

    assert response.status_code == 201
    me = client.get("/me").json()
    assert (me["email"], me["name"], me["is_admin"], me["team"]["name"]) == (EMAIL, "Ada", True, "default")
    assert me["csrf_token"] == response.json()["csrf_token"]
    assert not service.setup_is_open(context, token)


def test_the_link_works_once(context: Context, browser: Browser) -> None:
    token = service.bootstrap(context).setup_token
    assert browser().post("/setup", json=body(token)).status_code == 201
    again = browser().post("/setup", json=body(token, email="eve@example.org"))
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert "set-cookie" not in again.headers


def test_of_several_at_once_one_gets_in(context: Context, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    token = service.bootstrap(context).setup_token
    everybody, hash_password = Barrier(4), passwords.hash_password

    def hash_and_meet(password: str) -> str:
        """All have looked at the link by now and found it open."""
        everybody.wait(20)
        return hash_password(password)

    monkeypatch.setattr(passwords, "hash_password", hash_and_meet)

    def attempt(number: int) -> int:
        return browser().post("/setup", json=body(token, email=f"user{number}@example.org")).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(attempt, range(4)))

    assert statuses[0] == 201
    assert set(statuses[1:]) <= {403, 409}
    with context.database.reading() as session:
        people = [user.email for user in session.exec(select(User)) if user.password_hash]
    assert len(people) == 1


def test_a_newer_link_replaces_an_older_one(context: Context, browser: Browser) -> None:
    old, new = service.bootstrap(context).setup_token, service.bootstrap(context).setup_token
    assert old != new
    refused = browser().post("/setup", json=body(old))
    assert (refused.status_code, refused.json()["code"]) == (403, "setup_link_not_valid")
    assert browser().post("/setup", json=body(new)).status_code == 201


def test_a_wrong_token_opens_nothing(context: Context, browser: Browser) -> None:
    service.bootstrap(context)
    assert not service.setup_is_open(context, "wrong")
    assert browser().post("/setup", json=body("wrong")).status_code == 403


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "short"}, "at least 12"),
        ({"password": "aaaaaaaaaaaaaaaa"}, "fewer than four"),
        ({"password": "x" * 2000}, "longer than 1024"),
        ({"password": EMAIL}, "is the e-mail address"),
        ({"email": "nobody"}, "not an e-mail address"),
        ({"email": service.OPERATOR_EMAIL}, "not an e-mail address"),
    ],
)
def test_a_refused_password_or_address_leaves_the_link_open(
    context: Context, browser: Browser, change: dict[str, str], said: str
) -> None:
    token = service.bootstrap(context).setup_token
    refused = browser().post("/setup", json=body(token, **change))
    assert refused.status_code == 422
    assert said in refused.json()["detail"]
    assert refused.json()["next_step"]
    assert browser().post("/setup", json=body(token)).status_code == 201


@pytest.mark.parametrize(("public_url", "secure"), [("http://127.0.0.1:8000", False), ("https://slip.example", True)])
def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    context: Context, browser: Browser, public_url: str, secure: bool
) -> None:
    client = browser()
    settings = context.settings.model_copy(update={"public_url": public_url})
    client.app.state.context = replace(context, settings=settings)  # type: ignore[attr-defined]
    response = client.post("/setup", json=body(service.bootstrap(context).setup_token))
    attributes = {part.strip().lower() for part in response.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=lax", "path=/"} <= attributes
    assert ("secure" in attributes) is secure


def test_someone_signed_in_cannot_be_replaced_by_a_later_link(context: Context, admin: TestClient) -> None:
    assert service.bootstrap(context).setup_token is None
