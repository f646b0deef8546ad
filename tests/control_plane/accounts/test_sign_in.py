"""Signing in and out, guessing, CSRF."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from sqlmodel import select

from control_plane.accounts.service import OPERATOR_EMAIL, SESSION_LIFETIME
from control_plane.accounts.sign_in_limit import PER_ACCOUNT, PER_ADDRESS, WINDOW
from control_plane.accounts.tables import User
from control_plane.context import Context
from tests.support.accounts import EMAIL, PASSWORD, Browser, sign_in
from tests.support.clock import FakeClock

WRONG = "not it not it not it"


def attempt(client: TestClient, email: str = EMAIL, password: str = WRONG) -> int:
    return client.post("/auth/login", json={"email": email, "password": password}).status_code


def test_in_and_out(admin: TestClient, browser: Browser) -> None:
    client = sign_in(browser(), email=EMAIL.upper())
    assert client.get("/me").json()["via"] == "session"
    cookie = client.cookies["slipway_session"]

    assert client.post("/auth/logout").status_code == 204
    assert client.cookies.get("slipway_session") is None
    assert browser().get("/me", headers={"Cookie": f"slipway_session={cookie}"}).status_code == 401
    assert admin.get("/me").status_code == 200, "another browser stays signed in"


def test_a_wrong_password_and_an_unknown_person_look_the_same(admin: TestClient, browser: Browser) -> None:
    answers = [
        browser().post("/auth/login", json={"email": email, "password": WRONG})
        for email in (EMAIL, "nobody@example.org", OPERATOR_EMAIL)
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1


def test_guessing_is_slowed_down_and_time_heals(admin: TestClient, browser: Browser, clock: FakeClock) -> None:
    client = browser()
    assert [attempt(client) for _ in range(PER_ACCOUNT)] == [401] * PER_ACCOUNT
    clock.advance(60)

    refused = client.post("/auth/login", json={"email": EMAIL, "password": PASSWORD})
    assert refused.status_code == 429, "even the right password must wait"
    wait = refused.json()["retry_after_s"]
    assert wait == WINDOW.total_seconds() - 60
    assert refused.headers["Retry-After"] == str(wait)
    assert attempt(browser("192.0.2.2"), password=PASSWORD) == 200, "the owner, elsewhere, is not locked out"

    clock.advance(wait - 1)
    assert attempt(client, password=PASSWORD) == 429
    clock.advance(1)
    assert attempt(client, password=PASSWORD) == 200


def test_knocking_while_one_must_wait_does_not_prolong_it(
    admin: TestClient, browser: Browser, clock: FakeClock
) -> None:
    client = browser()
    for _ in range(PER_ACCOUNT):
        attempt(client)
    clock.advance(WINDOW.total_seconds() - 1)
    assert {attempt(client) for _ in range(PER_ACCOUNT + 1)} == {429}
    clock.advance(1)
    assert attempt(client, password=PASSWORD) == 200


def test_a_success_starts_the_count_again(admin: TestClient, browser: Browser) -> None:
    client = browser()
    for _ in range(3):
        assert [attempt(client) for _ in range(PER_ACCOUNT - 1)] == [401] * (PER_ACCOUNT - 1)
        assert attempt(client, password=PASSWORD) == 200


def test_one_address_cannot_try_every_account(admin: TestClient, browser: Browser) -> None:
    client = browser()
    assert {attempt(client, f"user{number}@example.org") for number in range(PER_ADDRESS)} == {401}
    assert attempt(client, "one.more@example.org") == 429


def test_guesses_sent_at_once_are_counted_too(admin: TestClient, browser: Browser) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: attempt(browser()), range(16)))
    assert statuses.count(401) <= PER_ACCOUNT
    assert set(statuses) <= {401, 429}


def test_a_session_ends_by_itself(admin: TestClient, clock: FakeClock) -> None:
    clock.advance(SESSION_LIFETIME.total_seconds() - 1)
    assert admin.get("/me").status_code == 200
    clock.advance(1)
    assert admin.get("/me").json()["code"] == "unauthenticated"


def test_a_disabled_person_is_out_at_once(
    context: Context, admin: TestClient, browser: Browser, add_user: Callable[..., User]
) -> None:
    user = add_user("bob@example.org")
    client = sign_in(browser(), "bob@example.org")
    with context.database.transaction() as session:
        session.exec(select(User).where(User.id == user.id)).one().disabled_at = context.clock.now()
    assert client.get("/me").status_code == 401
    assert attempt(browser(), "bob@example.org", PASSWORD) == 401


def test_a_hash_with_old_parameters_is_renewed(
    context: Context, browser: Browser, add_user: Callable[..., User]
) -> None:
    user = add_user("bob@example.org")
    weak = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    with context.database.transaction() as session:
        session.exec(select(User).where(User.id == user.id)).one().password_hash = weak
    for _ in range(2):
        sign_in(browser(), "bob@example.org")
    with context.database.reading() as session:
        renewed = session.exec(select(User).where(User.id == user.id)).one().password_hash
    assert renewed is not None
    assert "m=64," not in renewed


class TestCsrf:
    """A browser's session alone changes nothing: the request must prove that our own page sent it."""

    @pytest.fixture
    def client(self, admin: TestClient) -> TestClient:
        self.token = admin.headers.pop("X-CSRF-Token")
        return admin

    def test_refused_without_the_token(self, client: TestClient) -> None:
        refused = client.post("/keys", json={"name": "stolen"})
        assert (refused.status_code, refused.json()["code"]) == (403, "csrf_refused")
        assert "stolen" not in client.get("/keys").text

    def test_refused_with_the_token_of_another_session(self, client: TestClient, browser: Browser) -> None:
        other = sign_in(browser())
        headers = {"X-CSRF-Token": other.headers["X-CSRF-Token"]}
        assert client.post("/keys", json={"name": "stolen"}, headers=headers).status_code == 403

    def test_the_header(self, client: TestClient) -> None:
        assert client.post("/keys", json={"name": "mine"}, headers={"X-CSRF-Token": self.token}).status_code == 201

    def test_the_form_field_leaves_the_form_readable(self, client: TestClient) -> None:
        answer = client.post("/form", data={"csrf_token": self.token, "note": "hello"})
        assert (answer.status_code, answer.json()) == (200, {"note": "hello", "name": "Ada"})

    @pytest.mark.parametrize("value", [None, "", "ünsinn", "0" * 64])
    def test_a_form_without_it(self, client: TestClient, value: str | None) -> None:
        data = {"note": "hello"} | ({} if value is None else {"csrf_token": value})
        assert client.post("/form", data=data).status_code == 403

    def test_reading_needs_none(self, client: TestClient) -> None:
        assert client.get("/me").status_code == 200

    def test_a_key_needs_none(self, client: TestClient, browser: Browser) -> None:
        made = client.post("/keys", json={"name": "k"}, headers={"X-CSRF-Token": self.token}).json()
        answer = browser().post("/form", data={"note": "x"}, headers={"Authorization": f"Bearer {made['key']}"})
        assert answer.status_code == 200
