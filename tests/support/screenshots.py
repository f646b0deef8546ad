"""Makes the pictures in docs/images from a running system: ``python -m tests.support.screenshots``."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.hub import models
from tests.hub.server import HubServer
from tests.support.browser import chromium, come_in
from tests.support.slipway import RunningSlipway, slipway_up

IMAGES = Path(__file__).parents[2] / "docs" / "images"
_WAIT_MS = 90_000


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="slipway-pictures-") as folder,
        HubServer() as hub,
        slipway_up(Path(folder) / "data", hub) as slipway,
        chromium() as browser,
    ):
        weights = models.tiny_llama(
            Path(folder) / "model", shards=4, hidden_size=512, intermediate_size=2048, num_hidden_layers=8
        )
        hub.add_repo("demo/llama-33m", weights)
        hub.faults.rate(12_000_000, "/cdn/*")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        come_in(page, slipway)
        launch_page(page, slipway)
        downloading(page)
        running(page, slipway)


def launch_page(page: Page, slipway: RunningSlipway) -> None:
    """A model chosen from the catalog, with its fit."""
    page.goto(f"{slipway.url}/launch?model=slipway/starter")
    _picture(page, "launch")


def downloading(page: Page) -> None:
    """About a third of the way."""
    page.get_by_role("textbox", name="Custom model ID").fill("demo/llama-33m")
    expect(page.get_by_role("region", name="Chosen model")).to_contain_text("demo/llama-33m")
    page.get_by_role("button", name="Launch", exact=True).click()
    bar = page.get_by_role("progressbar", name="Weights of llama-33m")
    expect(bar).to_have_attribute("aria-valuenow", re.compile("^[34].$"), timeout=_WAIT_MS)
    _picture(page, "downloading")


def running(page: Page, slipway: RunningSlipway) -> None:
    """The starter, asked something."""
    page.goto(f"{slipway.url}/instances/{slipway.instance('starter')['id']}?tab=playground")
    page.get_by_text("Sampling and system prompt").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_text("Sampling and system prompt").click()
    page.get_by_role("textbox", name="Message").fill("Who are you?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#talk-figures")).to_contain_text("tokens in", timeout=_WAIT_MS)
    _picture(page, "running")


def _picture(page: Page, name: str) -> None:
    page.screenshot(path=IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
