"""The launch page: search, check, fit, launch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub import models
from tests.hub.server import HubServer
from tests.web.conftest import Browser
from tests.web.html import Element, read


@pytest.fixture
def tiny(hub: HubServer, tmp_path: Path) -> str:
    """A model on the local hub that fits."""
    hub.add_repo("tests/tiny", models.tiny_llama(tmp_path / "tiny"))
    return "tests/tiny"


def cards(page: Element) -> list[str]:
    """The ids on the cards."""
    return [card.one(class_="id mono small").text for card in page.all("a", class_="card")]


def test_search_and_filters_live_in_the_url(browser: Browser) -> None:
    page = browser.read_page("/launch?q=starter")
    assert cards(page) == ["slipway/starter"]
    assert page.labelled("Search models")["value"] == "starter"
    gated = browser.read_page("/launch?family=Llama&gated=true&max_parameters=4000000000")
    assert cards(gated)
    assert all("gated" in card.text for card in gated.all("a", class_="card"))
    assert browser.get("/launch/cards?q=starter").headers["HX-Replace-Url"] == "/launch?q=starter"
    assert cards(browser.read_page("/launch?max_parameters=many")) == []


def test_the_long_list_is_cut_until_asked_for(browser: Browser) -> None:
    short, full = cards(browser.read_page("/launch/cards")), cards(browser.read_page("/launch/cards?all=1"))
    assert len(short) < len(full)
    assert full[: len(short)] == short


def test_a_model_that_is_not_served_says_why(browser: Browser, hub: HubServer, tmp_path: Path) -> None:
    hub.add_repo("tests/odd", models.unsupported_model(tmp_path / "odd"))
    page = browser.read_page("/launch?model=tests/odd")
    button = page.button("Launch")
    assert "disabled" in button.attributes
    assert "RwkvForCausalLM is a state-space or recurrent model" in page.one(id=button["aria-describedby"]).text


def test_a_card_says_what_a_model_needs_and_which_of_its_facts_nobody_checked(browser: Browser) -> None:
    (card,) = browser.read_page("/launch/cards?q=EleutherAI/gpt-neox-20b").all("a", class_="card")
    assert "base" in card.text
    assert "one GPU with 80 GB" in card.text
    assert "not checked: parameters" in card.text
    starter = browser.read_page("/launch/cards?q=starter").all("a", class_="card")[0]
    assert "not checked" not in starter.text
    page = browser.read_page("/launch?model=Qwen/Qwen3-0.6B")  # the local hub does not have it
    assert "Not checked" in page.one(id="choice").text


def test_a_model_that_transformers_runs_says_so(browser: Browser, hub: HubServer, tmp_path: Path) -> None:
    folder = models.tiny_llama(tmp_path / "glm", architectures=["Glm4MoeForCausalLM"], model_type="glm4_moe")
    hub.add_repo("tests/glm", folder)
    page = browser.read_page("/launch?model=tests/glm")
    assert "served through Transformers" in page.one("form", id="launch-form").text
    assert "disabled" not in page.button("Launch").attributes


def test_one_click_is_enough(browser: Browser, tiny: str) -> None:
    page = browser.read_page(f"/launch?model={tiny}")
    form = page.one("form", id="launch-form")
    assert form.fields()["hardware"] == "local-cpu"
    button = page.button("Launch")
    assert page.one(id=button["aria-describedby"]).text == "$0.25 per hour"
    answer = browser.send(form)
    assert answer.url.path.startswith("/instances/"), answer.text
    assert read(answer.text).one("h1").text == "tiny"


def test_hardware_shows_fit_by_part_and_why_not(browser: Browser, tiny: str) -> None:
    fits, not_fits = browser.read_page(f"/launch?model={tiny}").all("label", class_="offer")
    for part in ("weights", "key/value cache", "activations", "engine"):
        assert part in fits.text
    assert "Fits:" in fits.text
    assert "Does not fit" in not_fits.text
    assert "disabled" in not_fits.one("input").attributes


def test_an_id_that_leads_nowhere_is_explained(browser: Browser) -> None:
    for model, says in [("tests/none", "tests/none"), ("no slash ..", "no slash"), ("x" * 300, "200")]:
        page = browser.read_page(f"/launch/choice?model={model}")
        assert says in page.one(role="alert").text
        assert "disabled" in page.button("Launch").attributes
    assert browser.read_page("/launch?model=tests/none").labelled("Custom model ID")["value"] == "tests/none"


def test_nothing_typed_is_lost_on_an_error(browser: Browser, tiny: str) -> None:
    form = browser.read_page(f"/launch?q=llama&model={tiny}").one("form", id="launch-form")
    typed = {"name": "!bad name", "revision": "main", "max_model_len": "8", "max_num_seqs": "7"}
    answer = browser.send(form, **typed)
    assert answer.status_code == 422
    page = read(answer.text)
    labels = {
        "Name": "name",
        "Revision": "revision",
        "Longest context": "max_model_len",
        "Most requests at once": "max_num_seqs",
    }
    for label, field in labels.items():
        assert page.labelled(label)["value"] == typed[field]
    assert "at least 16" in page.one(id="max_model_len-error").text
    assert "begins with" in page.one(id="name-error").text
    assert page.labelled("Search models")["value"] == "llama"


def test_a_taken_name_is_said_and_the_form_kept(browser: Browser, tiny: str) -> None:
    form = browser.read_page(f"/launch?model={tiny}").one("form", id="launch-form")
    assert browser.send(form, name="mine").url.path.startswith("/instances/")
    answer = browser.send(form, name="mine")
    assert answer.status_code == 409
    page = read(answer.text)
    assert "already" in page.one(role="alert").text
    assert page.labelled("Name")["value"] == "mine"
    assert browser.send(page.one("form", id="launch-form"), name="another").url.path.startswith("/instances/")


def test_typed_limits_reach_the_instance(browser: Browser, tiny: str) -> None:
    form = browser.read_page(f"/launch?model={tiny}").one("form", id="launch-form")
    answer = browser.send(form, name="limited", max_model_len="128", max_num_seqs="4")
    instance = browser.get(f"/api/v1{answer.url.path}").json()
    assert instance["engine"]["max_model_len"] == 128
    assert instance["engine"]["max_num_seqs"] == 4
    assert instance["hardware"] == "local-cpu"
