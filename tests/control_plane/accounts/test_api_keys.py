"""API keys from creation to revocation; teams apart; nothing secret at rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import MetaData
from sqlmodel import select

from control_plane.accounts import service
from control_plane.accounts.tables import Membership, User
from control_plane.context import Context
from tests.support.accounts import EMAIL, PASSWORD, Browser, bearer, sign_in
from tests.support.clock import FakeClock


def create(client: TestClient, **body: object) -> dict[str, str]:
    response = client.post("/keys", json={"name": "laptop"} | body)
    assert response.status_code == 201, response.text
    made: dict[str, str] = response.json()
    return made


def test_a_key_is_shown_once_works_and_is_revoked(admin: TestClient, browser: Browser) -> None:
    made = create(admin)
    assert made["key"].startswith(made["prefix"])
    assert made["key"].startswith("sk-slip-")

    client = browser()
    me = client.get("/me", headers=bearer(made["key"])).json()
    assert (me["email"], me["via"], me["csrf_token"]) == (EMAIL, "key", None)
    listed = next(item for item in admin.get("/keys").json()["items"] if item["id"] == made["id"])
    assert "key" not in listed

    assert admin.delete(f"/keys/{made['id']}").status_code == 204
    assert admin.delete(f"/keys/{made['id']}").status_code == 204, "revoking twice is fine"
    refused = client.get("/me", headers=bearer(made["key"]))
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    listed = next(item for item in admin.get("/keys").json()["items"] if item["id"] == made["id"])
    assert listed["revoked_at"] is not None


def test_a_key_expires(admin: TestClient, browser: Browser, clock: FakeClock) -> None:
    made = create(admin, expires_at=(clock.now() + timedelta(hours=1)).isoformat())
    assert browser().get("/me", headers=bearer(made["key"])).status_code == 200
    clock.advance(3600)
    assert browser().get("/me", headers=bearer(made["key"])).status_code == 401


def test_last_use_is_written_at_most_once_a_minute(admin: TestClient, browser: Browser, clock: FakeClock) -> None:
    made, client = create(admin), browser()

    def last_used() -> str | None:
        items = admin.get("/keys").json()["items"]
        return next(item["last_used_at"] for item in items if item["id"] == made["id"])

    assert last_used() is None
    client.get("/me", headers=bearer(made["key"]))
    first = last_used()
    assert first is not None
    clock.advance(59)
    client.get("/me", headers=bearer(made["key"]))
    assert last_used() == first
    clock.advance(1)
    client.get("/me", headers=bearer(made["key"]))
    assert last_used() == clock.now().isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Bearer sk-slip-tooshort", "mistyped"),
        ("Bearer ", "mistyped"),
        ("Basic dXNlcjpwYXNz", "scheme"),
        ("Bearer sk-slip-" + "a" * 38, "mistyped"),
    ],
)
def test_a_header_that_cannot_be_a_key(browser: Browser, header: str, said: str) -> None:
    refused = browser().get("/me", headers={"Authorization": header})
    assert refused.status_code == 401
    assert said in refused.json()["detail"]


def test_a_bad_key_is_not_rescued_by_a_session(admin: TestClient) -> None:
    assert admin.get("/me", headers=bearer("sk-slip-wrong")).status_code == 401


def test_nothing_without_credentials(browser: Browser) -> None:
    client = browser()
    for method, path in [("GET", "/me"), ("GET", "/keys"), ("POST", "/keys"), ("GET", "/users"), ("GET", "/audit")]:
        assert client.request(method, path, json={"name": "x"}).status_code == 401, path


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "   "},
        {"name": "x" * 101},
        {"name": "x", "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "x", "expires_at": "2030-01-01T00:00:00"},
        {"name": "x", "scopes": ["all"]},
    ],
)
def test_a_request_that_makes_no_sense(admin: TestClient, body: dict[str, object]) -> None:
    refused = admin.post("/keys", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


def test_pages(admin: TestClient) -> None:
    made = [create(admin, name=f"key {number}")["id"] for number in range(5)]
    seen: list[str] = []
    query = ""
    for _ in range(10):
        page = admin.get(f"/keys?limit=2{query}").json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query = f"&cursor={page['next_cursor']}"
    assert seen[:5] == made[::-1]
    assert len(seen) == len(set(seen))
    assert admin.get("/keys?cursor=nonsense").status_code == 422


class TestTenantsApart:
    @pytest.fixture
    def stranger(self, browser: Browser, add_user: Callable[..., User]) -> TestClient:
        add_user("mallory@example.org", team="another team", is_admin=True)
        return sign_in(browser(), "mallory@example.org")

    def test_another_teams_key_does_not_exist(self, admin: TestClient, stranger: TestClient, browser: Browser) -> None:
        made = create(admin)
        assert stranger.get("/keys").json()["items"] == []
        refused = stranger.delete(f"/keys/{made['id']}")
        missing = stranger.delete(f"/keys/{uuid4()}")
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        assert browser().get("/me", headers=bearer(made["key"])).status_code == 200

    def test_nor_its_people(self, stranger: TestClient) -> None:
        assert [user["email"] for user in stranger.get("/users").json()["items"]] == ["mallory@example.org"]

    def test_a_member_sees_only_their_own_keys(
        self, admin: TestClient, browser: Browser, add_user: Callable[..., User]
    ) -> None:
        add_user("bob@example.org")
        member, theirs = sign_in(browser(), "bob@example.org"), create(admin)
        mine = create(member)
        assert [key["id"] for key in member.get("/keys").json()["items"]] == [mine["id"]]
        assert member.delete(f"/keys/{theirs['id']}").status_code == 404
        assert {mine["id"], theirs["id"]} <= {key["id"] for key in admin.get("/keys").json()["items"]}
        for path in ("/users", "/audit"):
            assert member.get(path).status_code == 403

    def test_a_key_dies_with_its_owners_membership(
        self, context: Context, browser: Browser, add_user: Callable[..., User]
    ) -> None:
        user = add_user("bob@example.org")
        key = create(sign_in(browser(), "bob@example.org"))["key"]
        with context.database.transaction() as session:
            session.delete(session.exec(select(Membership).where(Membership.user_id == user.id)).one())
        assert browser().get("/me", headers=bearer(key)).status_code == 401


def test_no_secret_is_in_the_database_or_the_log(
    context: Context, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    prepared = service.bootstrap(context)
    client = browser()
    setup = {"token": prepared.setup_token, "email": EMAIL, "name": "Ada", "password": PASSWORD}
    csrf = client.post("/setup", json=setup).json()["csrf_token"]
    client.headers["X-CSRF-Token"] = csrf
    key = create(client)["key"]
    browser().get("/me", headers=bearer(key))
    browser().post("/auth/login", json={"email": EMAIL, "password": "a password mistyped"})

    at_rest = MetaData()
    at_rest.reflect(context.database.engine)
    with context.database.reading() as session:
        dump = "\n".join(str(row) for table in at_rest.sorted_tables for row in session.execute(select(table)))
    assert EMAIL in dump
    secrets = [prepared.setup_token, prepared.api_key, key, client.cookies["slipway_session"], csrf]
    for secret in [*secrets, PASSWORD, "a password mistyped", "the root secret of a test"]:
        assert secret is not None
        assert secret not in dump
        assert secret not in caplog.text
