"""The audit trail, and the theme."""

from __future__ import annotations

from collections.abc import Callable

from control_plane.accounts import repository
from control_plane.accounts.tables import User
from control_plane.context import Context
from control_plane.instances.tables import Instance
from tests.web.conftest import EMAIL, Browser


def test_the_audit_trail_tells_who_did_what(browser: Browser, add_instance: Callable[..., Instance]) -> None:
    instance = add_instance("watched")
    page = browser.read_page(f"/instances/{instance.id}")
    browser.send(next(form for form in page.all("form") if "Stop" in form.buttons()))
    trail = browser.read_page("/audit")
    stopped = next(row for row in trail.all("tr") if "instance.stopping" in row.text)
    assert "asked to stop by Ada" in stopped.text
    assert stopped.one("a")["href"] == f"/instances/{instance.id}"


def test_the_audit_trail_is_for_administrators(browser: Browser, context: Context) -> None:
    with context.database.transaction() as session:
        user = repository.user_by_email(session, EMAIL)
        assert user is not None
        session.get_one(User, user.id).is_admin = False
    assert "administrators" in browser.read_page("/audit", status=403).one(role="alert").text
    assert "Audit" not in [link.text for link in browser.read_page("/keys").one("nav").all("a")]


def test_the_theme_goes_round_and_is_drawn_by_the_server(browser: Browser) -> None:
    seen = []
    for _ in range(4):
        page = browser.read_page("/keys")
        seen.append(page.one("html")["data-theme"])
        answer = browser.send(page.one("form", action="/theme"))
        assert answer.url.path == "/keys"
    assert seen == ["auto", "light", "dark", "auto"]
    form = browser.read_page("/keys").one("form", action="/theme")
    assert browser.send(form, next="https://evil.example/").url.path == "/"
