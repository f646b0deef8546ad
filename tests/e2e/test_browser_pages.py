"""Every page in a real browser: accessible by axe's rules, and no wider than the screen; light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

import web
from tests.support.browser import chromium, come_in, watch_for_errors
from tests.support.slipway import RunningSlipway

pytestmark = pytest.mark.alone

AXE = Path(web.__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for this file."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def paths(slipway_up: RunningSlipway) -> list[str]:
    """Every kind of page."""
    starter = f"/instances/{slipway_up.instance('starter')['id']}"
    tabs = [f"{starter}?tab={tab}" for tab in ("overview", "api", "logs", "metrics", "playground", "settings")]
    return [
        "/",
        "/launch",
        "/launch?model=starter",
        "/launch?model=e2e/none",
        "/keys",
        "/audit",
        "/admin/orphans",
        "/admin/workers",
        *tabs,
        f"{starter}/terminate",
    ]


def violations(page: Page) -> list[str]:
    """What axe finds wrong, with the element it finds it at."""
    # Evaluated by the browser's debugger, which the page's Content-Security-Policy does not bind.
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [f"{page.url}: {rule['id']}: {rule['help']}: {node['html']}" for rule in found for node in rule["nodes"]]


def is_too_wide(page: Page, width: int) -> bool:
    """Whether one would have to scroll sideways on a screen of this width."""
    page.set_viewport_size({"width": width, "height": 900})
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_pages_are_accessible_and_fit_the_screen(
    slipway_up: RunningSlipway, browser: Browser, paths: list[str], *, theme: Literal["light", "dark"], width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = context.new_page()
    page.goto(f"{slipway_up.url}/login")
    wrong = violations(page)
    come_in(page, slipway_up)
    complaints = watch_for_errors(page)
    for path in paths:
        page.goto(slipway_up.url + path)
        wrong += violations(page)
        wrong += [f"{path} is wider than {narrow} px" for narrow in (390, 768, 1440) if is_too_wide(page, narrow)]
        page.set_viewport_size({"width": width, "height": 900})
    context.close()
    assert not wrong
    assert not complaints
