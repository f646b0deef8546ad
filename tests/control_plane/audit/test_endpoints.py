"""The audit trail: what accounts do is in it, newest first, for the team's administrators only."""

from __future__ import annotations

from collections.abc import Callable

from fastapi.testclient import TestClient

from control_plane.accounts.tables import User
from tests.support.accounts import EMAIL, Browser, sign_in


def actions(client: TestClient) -> list[str]:
    return [event["action"] for event in client.get("/audit").json()["items"]]


def test_a_life_of_an_account(admin: TestClient, browser: Browser) -> None:
    made = admin.post("/keys", json={"name": "laptop"}).json()
    admin.delete(f"/keys/{made['id']}")
    admin.delete(f"/keys/{made['id']}")
    browser().post("/auth/login", json={"email": EMAIL, "password": "not it not it"})
    other = sign_in(browser())
    other.post("/auth/logout")

    assert actions(admin) == [
        "user.signed_out",
        "user.signed_in",
        "user.sign_in_failed",
        "key.revoked",
        "key.created",
        "user.created",  # the administrator
        "key.created",  # for client.json
        "user.created",  # the operator
    ]
    event = next(e for e in admin.get("/audit").json()["items"] if e["action"] == "key.revoked")
    assert event["object_id"] == made["id"]
    assert event["actor"] == f"user:{admin.get('/me').json()['user_id']}"
    assert "laptop" in event["message"]


def test_pages(admin: TestClient) -> None:
    everything = [event["id"] for event in admin.get("/audit").json()["items"]]
    first = admin.get("/audit?limit=2").json()
    second = admin.get(f"/audit?limit=2&cursor={first['next_cursor']}").json()
    assert [event["id"] for event in first["items"] + second["items"]] == everything[:4]
    assert admin.get("/audit?limit=0").status_code == 422


def test_another_team_sees_nothing_of_it(admin: TestClient, browser: Browser, add_user: Callable[..., User]) -> None:
    add_user("mallory@example.org", team="another team", is_admin=True)
    stranger = sign_in(browser(), "mallory@example.org")
    assert actions(stranger) == ["user.signed_in"]
    assert "mallory" not in admin.get("/audit").text
