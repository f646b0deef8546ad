"""REST for administrators over a real server: what they see, what they decide, and that nobody else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from control_plane.accounts import api_keys
from control_plane.accounts.principal import Principal
from control_plane.accounts.tables import User
from control_plane.app import create_app
from control_plane.database import Database
from control_plane.ids import new_id
from control_plane.processes.heartbeat import Heart
from control_plane.processes.tables import ProcessKind
from tests.control_plane.reaper.conftest import Reaper
from tests.support.clock import FakeClock
from tests.support.http import serving
from tests.support.instances import Plant, add_principal

#: The queries are tried on both databases elsewhere (reaper, processes).
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def plant(database: Database, database_url: str, clock: FakeClock, tmp_path: Path) -> Plant:
    """A control plane with one team and an empty provider."""
    return Plant.make(database, database_url, clock, tmp_path)


@pytest.fixture
def reaper(plant: Plant) -> Reaper:
    """Looks for orphans."""
    return Reaper(plant)


@pytest.fixture
def server(plant: Plant) -> Iterator[str]:
    """The API."""
    with serving(create_app(plant.context)) as url:
        yield f"{url}/api/v1"


def client(server: str, plant: Plant, principal: Principal) -> httpx.Client:
    key = api_keys.create(plant.context, principal, name="test").secret
    return httpx.Client(base_url=server, headers={"Authorization": f"Bearer {key}"}, trust_env=False)


@pytest.fixture
def admin(server: str, plant: Plant) -> Iterator[httpx.Client]:
    """An administrator of another team than the one that owns the instances."""
    grace = add_principal(plant.context, "grace")
    with plant.context.database.transaction() as session:
        session.get_one(User, grace.user_id).is_admin = True
    with client(server, plant, grace) as http:
        yield http


def test_orphans_are_listed_adopted_and_deleted(admin: httpx.Client, plant: Plant, reaper: Reaper) -> None:
    kept, unwanted = reaper.stray(model="slipway--starter", slug="kept"), reaper.stray()
    assert admin.get("/admin/orphans").json()["providers"][0]["checked_at"] is None
    reaper.look()
    plant.clock.advance(40)
    listed = admin.get("/admin/orphans").json()
    (provider,) = listed["providers"]
    expected = {"name": "fake", "age_s": 40, "owned": 2, "matched": 0, "unmatched": 2, "brake": None, "error": None}
    assert expected.items() <= provider.items()
    assert admin.get("/admin/providers").json()["items"] == [provider]
    ids = {item["name"]: item["id"] for item in listed["items"]}
    assert [item["adoptable"] for item in listed["items"]] == [True, True]
    adopted = admin.post(f"/admin/orphans/{ids[kept]}/adopt")
    assert (adopted.status_code, adopted.json()["slug"], adopted.json()["phase"]) == (202, "kept", "running")
    assert admin.get(f"/instances/{adopted.json()['id']}").status_code == 200, "it is the administrator's team's"
    deleted = admin.post(f"/admin/orphans/{ids[unwanted]}/delete")
    assert (deleted.status_code, deleted.json()["state"]) == (202, "deleting")
    reaper.look()
    assert list(plant.provider.replicas) == [kept]
    audited = [event["action"] for event in admin.get("/audit").json()["items"]]
    assert {"instance.adopted", "provider.orphan_delete_asked"} <= set(audited)


def test_instances_and_downloads_of_all_teams(admin: httpx.Client, plant: Plant) -> None:
    instance = plant.launch(name="theirs")
    plant.run_until(instance.id, "running")
    plant.launch(name="other")
    assert admin.get("/instances").json()["items"] == []
    (shown,) = admin.get("/admin/instances", params={"phase": "running"}).json()["items"]
    assert (shown["name"], shown["team"], shown["provider"]) == ("theirs", "team of ada", "fake")
    assert len(admin.get("/admin/instances", params={"provider": "fake"}).json()["items"]) == 2
    assert admin.get("/admin/instances", params={"provider": "none"}).json()["items"] == []
    first = admin.get("/admin/instances", params={"limit": 1}).json()
    second = admin.get("/admin/instances", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [page["items"][0]["name"] for page in (first, second)] == ["other", "theirs"]
    assert admin.get("/admin/downloads").json() == {"items": [], "next_cursor": None}


def test_workers_and_what_waits(admin: httpx.Client, plant: Plant) -> None:
    plant.launch()
    Heart(plant.context.database, plant.clock, ProcessKind.WORKER).beat()
    plant.clock.advance(95)
    shown = admin.get("/admin/workers").json()
    words = {process["kind"]: process["words"] for process in shown["items"]}
    assert words["worker"].endswith("was last seen 95 s ago")
    assert shown["waiting"] == {"instances": 1, "downloads": 0, "older_than_s": 60}


def test_nobody_else_is_let_in(server: str, plant: Plant, reaper: Reaper) -> None:
    reaper.stray()
    reaper.look()
    reads = ("orphans", "providers", "workers", "instances", "downloads")
    writes = (
        f"orphans/{reaper.open[0].id}/delete",
        f"orphans/{reaper.open[0].id}/adopt",
        "providers/fake/confirm-loss",
    )
    with client(server, plant, plant.principal) as member:
        assert {member.get(f"/admin/{path}").status_code for path in reads} == {403}
        assert {member.post(f"/admin/{path}").status_code for path in writes} == {403}
    assert httpx.get(f"{server}/admin/orphans", trust_env=False).status_code == 401
    assert reaper.open[0].decision is None


def test_what_is_not_there_is_not_found(admin: httpx.Client) -> None:
    for path in (f"orphans/{new_id()}/delete", f"orphans/{new_id()}/adopt", "providers/nowhere/confirm-loss"):
        assert admin.post(f"/admin/{path}").status_code == 404, path
