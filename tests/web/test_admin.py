"""The administrators' pages: orphans with their decisions, and the control plane's own processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from control_plane.accounts import repository
from control_plane.accounts.tables import User
from control_plane.context import Context
from control_plane.ids import new_id
from control_plane.processes.heartbeat import Heart
from control_plane.processes.tables import ProcessHeartbeat, ProcessKind
from control_plane.reaper.tables import Orphan, OrphanState
from tests.support.clock import FakeClock
from tests.web.conftest import EMAIL, Browser

#: The queries are tried on both databases elsewhere (reaper, processes).
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

AddOrphan = Callable[..., Orphan]
AddCheck = Callable[..., None]


def test_a_provider_without_orphans_says_when_it_was_asked(
    browser: Browser, add_check: AddCheck, clock: FakeClock
) -> None:
    assert "not checked yet" in browser.read_page("/admin/orphans").text
    add_check(owned=3, matched=3)
    clock.advance(40)
    page = browser.read_page("/admin/orphans")
    assert "0 unmatched, checked 40 s ago" in page.text.replace("\u202f", " ")
    assert "Nothing is unmatched" in page.text


def test_a_provider_that_cannot_be_asked_says_why(browser: Browser, add_check: AddCheck, clock: FakeClock) -> None:
    add_check(last_error="no route to it", error_since=clock.now() - timedelta(minutes=3))
    text = browser.read_page("/admin/orphans").text.replace("\u202f", " ")
    assert "cannot be asked for 3 min 0 s : no route to it" in text


def test_an_orphan_is_adopted_by_a_click(browser: Browser, add_orphan: AddOrphan) -> None:
    orphan = add_orphan(labels={"model": "slipway--starter", "name": "found"})
    page = browser.read_page("/admin/orphans")
    assert "slipway/starter" in page.text
    assert page.buttons() >= {f"Adopt {orphan.name}", f"Delete {orphan.name}…"}
    form = page.one("form", action=f"/admin/orphans/{orphan.id}/adopt")
    assert browser.send(form).url.path == "/instances"
    assert "found" in browser.read_page("/instances").text
    assert "Nothing is unmatched" in browser.read_page("/admin/orphans").text


def test_what_cannot_be_adopted_says_why(browser: Browser, add_orphan: AddOrphan) -> None:
    orphan = add_orphan()
    form = browser.read_page("/admin/orphans").one("form", action=f"/admin/orphans/{orphan.id}/adopt")
    answer = browser.send(form)
    assert answer.status_code == 409
    assert "do not say which model" in answer.text
    agent = add_orphan(f"slipway-fetch-{new_id().hex}")
    assert f"Adopt {agent.name}" not in browser.read_page("/admin/orphans").buttons()


def test_deleting_asks_first(browser: Browser, add_orphan: AddOrphan) -> None:
    orphan = add_orphan(node="node1")
    page = browser.read_page(f"/admin/orphans/{orphan.id}/delete")
    assert "node1" in page.text
    assert browser.send(page.one("form", action=f"/admin/orphans/{orphan.id}/delete")).url.path == "/admin/orphans"
    page = browser.read_page("/admin/orphans")
    assert OrphanState.DELETING in page.text
    assert not any(orphan.name in name for name in page.buttons()), "the decision is made"


def test_a_deletion_that_hangs_is_told(browser: Browser, add_orphan: AddOrphan, clock: FakeClock) -> None:
    add_orphan(state="deleting", decision="delete", decided_at=clock.now(), trouble="the provider refuses")
    assert "see the provider" not in browser.read_page("/admin/orphans").text
    clock.advance(300)
    text = browser.read_page("/admin/orphans").text
    assert "see the provider" in text
    assert "the provider refuses" in text


def test_the_brake_is_explained_and_a_loss_confirmed(browser: Browser, doubt: None, context: Context) -> None:
    banner = browser.read_page("/admin/orphans").one(role="alert")
    assert "5 of 8 replicas of local look gone at once" in banner.text
    page = browser.read_page(banner.one("form")["action"])
    browser.send(page.one("form", method="post", action="/admin/providers/local/confirm-loss"))
    shown = browser.get("/api/v1/admin/providers").json()["items"][0]
    assert shown["loss_confirmed_at"] is not None


def test_workers_and_what_waits(
    browser: Browser, context: Context, clock: FakeClock, add_instance: Callable[..., object]
) -> None:
    Heart(context.database, clock, ProcessKind.WORKER).beat()
    with context.database.transaction() as session:
        now = clock.now()
        gone = ProcessHeartbeat(
            name="web@other:1", kind="web", host="other", pid=1, version="0", started_at=now, seen_at=now
        )
        gone.seen_at = now - timedelta(minutes=5)
        session.add(gone)
    page = browser.read_page("/admin/workers")
    rows = {row.one("th").text: row.text for row in page.all("tr") if row.all("td")}
    assert "silent" in next(text for name, text in rows.items() if name.startswith("web other"))
    assert "alive" in next(text for name, text in rows.items() if name.startswith("worker"))
    assert "no row has waited" in page.text
    add_instance(phase="requested", next_attempt_at=clock.now() - timedelta(minutes=2))
    assert "1 instance older than 60 s" in browser.read_page("/admin/workers").one(role="alert").text


def test_these_pages_are_for_administrators(browser: Browser, context: Context, add_orphan: AddOrphan) -> None:
    names = {link.text for link in browser.read_page("/keys").one("nav").all("a")}
    assert {"Orphans", "Workers"} <= names
    orphan = add_orphan()
    with context.database.transaction() as session:
        user = repository.user_by_email(session, EMAIL)
        assert user is not None
        session.get_one(User, user.id).is_admin = False
    for path in ("orphans", "workers", "orphans/live", "workers/live", f"orphans/{orphan.id}/delete"):
        assert browser.get(f"/admin/{path}").status_code == 403, path
    names = {link.text for link in browser.read_page("/keys").one("nav").all("a")}
    assert not {"Orphans", "Workers"} & names
