"""A headless Chromium for the tests, and the way in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.slipway import RunningSlipway

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"

_FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
#: Where distributions put it; a snap's stub of another name would not start here.
_INSTALLED = ("/usr/bin/chromium", "google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, else the one that Playwright has installed."""
    installed = next(filter(None, map(shutil.which, _INSTALLED)), None)
    # Chromium's own sandbox does not work for root.
    flags = [*_FLAGS, "--no-sandbox"] if os.geteuid() == 0 else _FLAGS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed, args=flags)
        yield browser
        browser.close()


def come_in(page: Page, slipway: RunningSlipway) -> None:
    """Sign in as the first administrator; the first time by the set-up link, which makes them."""
    page.goto(slipway.setup_url)
    email, password = page.get_by_label("E-mail address"), page.get_by_label("Password")
    if email.is_visible():
        email.fill(EMAIL)
        page.get_by_label("Name").fill("Ada")
        password.fill(PASSWORD)
        page.get_by_role("button", name="Make account").click()
    else:
        page.get_by_role("link", name="Sign in").click()
        email.fill(EMAIL)
        password.fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Instances")).to_be_visible()


def watch_for_errors(page: Page) -> list[str]:
    """What the page's console and scripts complain about from now on; should stay empty."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints
