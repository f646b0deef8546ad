"""A person's way, in a real browser against real processes: from the set-up link to a model that is gone again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.hub import models
from tests.hub.server import HubServer
from tests.support.browser import chromium, come_in, watch_for_errors
from tests.support.processes import alive, eventually, family
from tests.support.slipway import RunningSlipway

pytestmark = pytest.mark.alone

#: Launches share two cores with whatever else the tests run.
SLOW_MS = 90_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for this file."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh profile that may use the clipboard."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(20_000)
    page = context.new_page()
    yield page
    context.close()


def copied(page: Page, button: str) -> str:
    """What the copy button of this name puts on the clipboard."""
    page.get_by_role("button", name=button).click()
    expect(page.locator("#announcements")).to_have_text("Copied")
    return str(page.evaluate("navigator.clipboard.readText()"))


def state_is(page: Page, state: str) -> None:
    """Wait until the page says so, by itself."""
    expect(page.locator("#instance-head").get_by_role("status")).to_contain_text(state, timeout=SLOW_MS)


def test_from_the_setup_link_to_terminated(
    slipway_up: RunningSlipway, hub: HubServer, page: Page, tmp_path: Path
) -> None:
    folder = models.tiny_llama(tmp_path / "m", hidden_size=512, intermediate_size=2048, num_hidden_layers=3)
    hub.add_repo("e2e/journey", folder)
    hub.faults.rate(10_000_000, "/cdn/*")
    complaints = watch_for_errors(page)
    before = {process.pid for process in family(slipway_up.process.pid)}
    come_in(page, slipway_up)

    launch(page)
    download(page)
    state_is(page, "running")
    engine = [process for process in family(slipway_up.process.pid) if process.pid not in before]
    assert engine
    call_it(page)
    talk_to_it(page)
    stop_and_start(page)
    terminate(page)
    eventually(lambda: not alive(engine), "the engine's processes end")
    assert not complaints


def launch(page: Page) -> None:
    """By its id, which is checked while it is typed."""
    page.get_by_role("link", name="Launch a model").click()
    page.get_by_role("textbox", name="Custom model ID").press_sequentially("e2e/journey")
    chosen = page.get_by_role("region", name="Chosen model")
    expect(chosen).to_contain_text("LlamaForCausalLM")
    expect(chosen).to_contain_text("Fits:")
    page.get_by_role("textbox", name="Name").fill("journey")
    page.get_by_role("button", name="Launch", exact=True).click()
    page.wait_for_url("**/instances/*")
    expect(page.get_by_role("heading", name="journey")).to_be_visible()


def download(page: Page) -> None:
    """The bars move without a reload."""
    bar = page.get_by_role("progressbar", name="Weights of journey")
    expect(bar).to_have_attribute("aria-valuenow", re.compile(r"^([1-9]|[1-9]\d)$"), timeout=SLOW_MS)
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"MB of \d"))
    expect(page.get_by_role("progressbar", name="model.safetensors")).to_be_visible()
    expect(page.locator(".figures")).to_contain_text("/s")


def call_it(page: Page) -> None:
    """The lines work as they are copied."""
    page.get_by_role("tab", name="API").click()
    url = page.get_by_role("textbox", name="API URL").input_value()
    assert copied(page, "Copy API URL") == url
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("textbox", name="New key")).to_have_value(re.compile("^sk-slip-"))
    curl = copied(page, "Copy the curl lines")
    answer = subprocess.run(["bash", "-c", f"{curl} -sS"], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
    page.get_by_role("tab", name="Python").click()
    program = copied(page, "Copy the Python lines")
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip()


def talk_to_it(page: Page) -> None:
    """The playground reaches it with the visitor's session."""
    page.get_by_role("tab", name="Playground").click()
    page.get_by_role("textbox", name="Message").fill("hello")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#talk-figures")).to_contain_text("tokens in", timeout=SLOW_MS)


def test_the_playground_streams_and_stops(slipway_up: RunningSlipway, page: Page) -> None:
    come_in(page, slipway_up)
    page.get_by_role("link", name="starter").click()
    page.get_by_role("tab", name="Playground").click()
    page.get_by_text("Sampling and system prompt").click()
    page.get_by_label("Temperature").fill("0")
    page.evaluate(
        """() => {
            window.pieces = new Set();
            const note = () => window.pieces.add(document.querySelector("#talk").textContent);
            new MutationObserver(note).observe(document.querySelector("#talk"), {childList: true, subtree: true});
        }"""
    )
    page.get_by_role("textbox", name="Message").fill("Who are you?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#talk-figures")).to_contain_text("tokens in", timeout=SLOW_MS)
    assert page.evaluate("window.pieces.size") > 5
    assert "Slipway" in page.get_by_role("log", name="Conversation").inner_text()
    # An answer that never comes, so that there is time to stop it.
    page.route("**/chat/completions", lambda _: None)
    page.get_by_role("textbox", name="Message").fill("And now?")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop generating").click()
    expect(page.get_by_role("button", name="Stop generating")).to_be_hidden()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def stop_and_start(page: Page) -> None:
    """Both buttons are on every tab."""
    page.get_by_role("button", name="Stop", exact=True).click()
    state_is(page, "stopped")
    page.get_by_role("button", name="Start", exact=True).click()
    state_is(page, "running")


def terminate(page: Page) -> None:
    """Asks for the name; the log is kept."""
    page.get_by_role("tab", name="Settings").click()
    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("textbox", name="Name of the instance").fill("journey")
    page.get_by_role("button", name="Terminate").click()
    state_is(page, "terminated")
    expect(page.get_by_role("button", name="Start", exact=True)).to_have_count(0)
    page.get_by_role("tab", name="Logs").click()
    expect(page.get_by_role("log", name="Engine log")).to_contain_text("ready")


def test_logs_and_metrics_move_by_themselves(slipway_up: RunningSlipway, page: Page) -> None:
    come_in(page, slipway_up)
    starter = slipway_up.instance("starter")
    page.goto(f"{slipway_up.url}/instances/{starter['id']}?tab=logs")
    log = page.get_by_role("log", name="Engine log")
    lines = len(log.inner_text().splitlines())
    with slipway_up.client() as client:
        body = {"model": starter["model"], "prompt": "Slipway", "max_tokens": 8}
        client.post(f"{starter['api_url']}/completions", json=body).raise_for_status()
    eventually(lambda: len(log.inner_text().splitlines()) > lines, "the log grows")
    assert "/v1/completions" in log.inner_text().splitlines()[-1]
    page.get_by_role("tab", name="Metrics").click()
    written = page.locator(".gauge", has_text="Tokens written").locator("dd")
    before = int(written.inner_text())
    with slipway_up.client() as client:
        client.post(f"{starter['api_url']}/completions", json=body).raise_for_status()
    expect(written).to_have_text(str(before + 8), timeout=SLOW_MS)


def test_a_lost_connection_is_said_and_found_again(slipway_up: RunningSlipway, page: Page) -> None:
    come_in(page, slipway_up)
    page.get_by_role("link", name="starter").click()
    state_is(page, "running")
    page.context.set_offline(True)
    page.evaluate("document.querySelector('[sse-connect]')['htmx-internal-data'].sseEventSource.close()")
    page.evaluate(
        "document.querySelector('[sse-connect]')['htmx-internal-data'].sseEventSource.onerror(new Event('error'))"
    )
    expect(page.locator("#connection")).to_contain_text("reconnecting")
    page.context.set_offline(False)
    expect(page.locator("#connection")).to_be_empty(timeout=SLOW_MS)


def test_the_search_answers_the_keyboard(slipway_up: RunningSlipway, page: Page) -> None:
    come_in(page, slipway_up)
    page.goto(f"{slipway_up.url}/launch")
    page.keyboard.press("/")
    search = page.get_by_role("searchbox", name="Search models")
    expect(search).to_be_focused()
    page.keyboard.type("starter")
    expect(page.locator(".card")).to_have_count(1)
    expect(page).to_have_url(f"{slipway_up.url}/launch?q=starter")
    # The card of the last letter's answer: a click on one that is just being replaced goes nowhere.
    page.locator(".card[href*='q=starter&']").click()
    expect(page.get_by_role("button", name="Launch", exact=True)).to_be_in_viewport()
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    expect(search).not_to_be_focused()
