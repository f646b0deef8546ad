"""The list of instances, and the page of one, in every state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from control_plane.accounts import repository as accounts
from control_plane.accounts.tables import Team
from control_plane.context import Context
from control_plane.instances.lifecycle import Phase
from control_plane.instances.tables import Instance, Replica
from tests.support.clock import FakeClock
from tests.web.conftest import Browser
from tests.web.html import Element, read

AddInstance = Callable[..., Instance]

BUTTONS = {
    Phase.REQUESTED: {"Stop", "Terminate"},
    Phase.DOWNLOADING: {"Stop", "Terminate"},
    Phase.PROVISIONING: {"Stop", "Terminate"},
    Phase.STARTING: {"Stop", "Terminate"},
    Phase.RUNNING: {"Stop", "Restart", "Replace at once", "Terminate"},
    Phase.SLEEPING: {"Stop", "Restart", "Replace at once", "Terminate"},
    Phase.FAILED: {"Start", "Terminate"},
    Phase.STOPPING: {"Terminate"},
    Phase.STOPPED: {"Start", "Terminate"},
    Phase.TERMINATING: set(),
    Phase.TERMINATED: set(),
}
SHAPES = {Phase.RUNNING: "●", Phase.STARTING: "◐", Phase.REQUESTED: "○", Phase.FAILED: "✕", Phase.STOPPED: "–"}


def names_in(page: Element) -> list[str]:
    """The instances of the table, in their order."""
    return [row.text for row in page.all("th", scope="row")]


def test_without_instances_the_page_says_how_to_get_one(browser: Browser) -> None:
    page = browser.read_page("/")
    assert any(link["href"] == "/launch" for link in page.one("main").all("a"))
    assert "slipway launch starter" in page.text
    assert not page.all("table")


def test_every_phase_has_its_page(browser: Browser, add_instance: AddInstance) -> None:
    for phase in Phase:
        instance = add_instance(f"in {phase}", phase=phase, reason=f"because of {phase}", next_step="Do this.")
        page = browser.read_page(f"/instances/{instance.id}")
        assert page.one("h1").text == instance.name
        shown = page.one("div", id="instance-head")
        assert phase in shown.one(role="status").text
        assert SHAPES.get(phase, "") in shown.text
        assert f"because of {phase} Do this." in page.one("main").text
        assert shown.buttons() == BUTTONS[phase], phase
        tabs = page.all(role="tab")
        assert [tab.text for tab in tabs] == ["Overview", "API", "Logs", "Metrics", "Playground", "Settings"]
        assert [tab.text for tab in tabs if tab["aria-selected"] == "true"] == ["Overview"]


def test_a_failure_is_an_alert_with_a_next_step(browser: Browser, add_instance: AddInstance) -> None:
    instance = add_instance(phase="failed", reason="out of memory", next_step="Pick a smaller model.")
    for tab in ("overview", "logs"):
        alert = browser.read_page(f"/instances/{instance.id}?tab={tab}").one(role="alert")
        assert alert.text == "out of memory Pick a smaller model."


def test_a_crash_loop_shows_the_engines_last_lines(browser: Browser, add_instance: AddInstance) -> None:
    reason = "engine exited with code 1, for the 6th time in a row\nTraceback\nValueError: <no> such thing"
    instance = add_instance(phase="failed", reason=reason, next_step="See the log.")
    alert = browser.read_page(f"/instances/{instance.id}").one(role="alert")
    assert alert.one("strong").text == "engine exited with code 1, for the 6th time in a row"
    assert alert.one("pre").text == "Traceback ValueError: <no> such thing"
    assert "Traceback" not in browser.read_page("/instances").one("tbody").text


def test_every_replica_is_shown_with_what_is_wrong(
    browser: Browser, add_instance: AddInstance, context: Context, clock: FakeClock
) -> None:
    instance = add_instance(generation=3, replica_count=2)
    now = clock.now()
    columns: list[dict[str, object]] = [
        {"generation": 2, "ready": False, "retiring_since": now - timedelta(seconds=20), "node": "node1"},
        {"generation": 3, "ready": True, "node": "node2"},
        {"generation": 3, "condition": "0/2 nodes are available: Insufficient nvidia.com/gpu"},
        {"generation": 3, "condition": "engine exited with code 1\nlast words", "restarts": 6, "last_exit_code": 1},
    ]
    with context.database.transaction() as session:
        for ordinal, values in enumerate(columns):
            session.add(
                Replica(
                    **{
                        "instance_id": instance.id,
                        "ordinal": ordinal,
                        "provider": "local",
                        "resource_name": f"r-{ordinal}",
                        "boot_token": "b",
                        "created_at": now,
                        **values,
                    }
                )
            )
    table = browser.read_page(f"/instances/{instance.id}").one("section", aria_labelledby="replicas-title")
    leaving, ready, waiting, given_up = (row.text for row in table.one("tbody").all("tr"))
    assert "leaving for 20" in leaving
    assert "node1 2 of 3" in leaving
    assert ready == "Replica 1 ● ready node2 3"
    assert "not ready 0/2 nodes are available: Insufficient nvidia.com/gpu" in waiting
    assert "given up crashed 6×, last exit code 1 engine exited with code 1 last words" in given_up


def test_the_number_of_replicas_is_a_setting(browser: Browser, add_instance: AddInstance) -> None:
    instance = add_instance(replica_count=2, price_per_hour=0.5)
    page = browser.read_page(f"/instances/{instance.id}?tab=settings")
    form = page.one("form", action=f"/instances/{instance.id}/replicas")
    assert page.labelled("Replicas")["value"] == "2"
    assert "$0.25 per hour and replica" in form.text
    for typed, says in [("0", "at least 1"), ("many", "whole number"), ("99", "at most 16"), ("", "is needed")]:
        answer = browser.send(form, replicas=typed)
        assert answer.status_code == 422
        field = read(answer.text).labelled("Replicas")
        assert field["value"] == typed
        assert says in read(answer.text).one(id=field["aria-describedby"].split()[0]).text
    assert browser.send(form, replicas="3").url.path == f"/instances/{instance.id}"
    shown = browser.get(f"/api/v1/instances/{instance.id}").json()
    assert (shown["replica_count"], shown["price_per_hour"]) == (3, 0.75)


def test_a_download_is_shown_with_bytes_rate_and_time_left(browser: Browser, add_instance: AddInstance) -> None:
    files = {"a.safetensors": (4_000_000, 16_000_000), "b.json": (1_000, 1_000)}
    instance = add_instance(phase="downloading", files=files)
    page = browser.read_page(f"/instances/{instance.id}")
    bars = {bar["aria-label"]: bar for bar in page.all(role="progressbar")}
    assert set(bars) == {"Weights of llama", "a.safetensors", "b.json"}
    assert bars["a.safetensors"]["aria-valuenow"] == "25"
    assert bars["b.json"]["aria-valuenow"] == "100"
    text = page.text
    assert "4.00 MB of 16.0 MB" in text
    assert "2.00 MB/s" in text
    assert "6 s left" in text


def test_a_stalled_download_says_so(browser: Browser, add_instance: AddInstance, clock: FakeClock) -> None:
    instance = add_instance(phase="downloading", files={"a.safetensors": (4, 16)})
    assert "stalled" not in browser.read_page(f"/instances/{instance.id}").text
    clock.advance(60)
    assert "stalled for 60 s" in browser.read_page(f"/instances/{instance.id}").text
    assert "stalled" in browser.read_page("/instances").text


def test_the_list_filters_and_sorts_by_its_url(browser: Browser, add_instance: AddInstance) -> None:
    for name, phase, model in [
        ("beta", "running", "x/one"),
        ("Alpha", "failed", "x/two"),
        ("gone", "terminated", "x/one"),
    ]:
        add_instance(name, phase=phase, model=model)
    assert set(names_in(browser.read_page("/instances"))) == {"Alpha", "beta"}
    assert names_in(browser.read_page("/instances?sort=name")) == ["Alpha", "beta"]
    page = browser.read_page("/instances?sort=name&desc=1&state=all")
    assert names_in(page) == ["gone", "beta", "Alpha"]
    assert page.one("th", aria_sort="descending").text.startswith("Name")
    assert names_in(browser.read_page("/instances?q=TWO")) == ["Alpha"]
    assert names_in(browser.read_page("/instances?state=failed&sort=nonsense")) == ["Alpha"]
    nothing = browser.read_page("/instances?q=nothing-like-it")
    assert names_in(nothing) == []
    assert "No instance matches" in nothing.text


def test_another_teams_instance_does_not_exist(browser: Browser, add_instance: AddInstance, context: Context) -> None:
    with context.database.transaction() as session:
        other = Team(name="others", created_at=context.clock.now())
        session.add(other)
        session.flush()
        assert accounts.team_by_name(session, "others") is not None
    theirs = add_instance("theirs", team_id=other.id)
    browser.read_page(f"/instances/{theirs.id}", status=404)
    browser.read_page(f"/instances/{theirs.id}/terminate", status=404)
    assert "theirs" not in browser.get("/instances?state=all").text


def test_the_api_tab_has_the_url_and_lines_that_carry_a_new_key(browser: Browser, add_instance: AddInstance) -> None:
    instance = add_instance()
    page = browser.read_page(f"/instances/{instance.id}?tab=api")
    url = browser.get(f"/api/v1/instances/{instance.id}").json()["api_url"]
    assert page.labelled("API URL")["value"] == url
    assert "$SLIPWAY_API_KEY" in page.one(id="snippet-1").text
    made = read(browser.send(page.one("form", action=f"/instances/{instance.id}/keys")).text)
    key = made.labelled("New key")["value"]
    for number in ("1", "2", "3"):
        assert key in made.one(id=f"snippet-{number}").text
        assert url in made.one(id=f"snippet-{number}").text
    assert key not in browser.get(f"/instances/{instance.id}?tab=api").text


def test_the_log_is_there_after_the_end(browser: Browser, add_instance: AddInstance) -> None:
    instance = add_instance(phase="terminated")
    log = browser.read_page(f"/instances/{instance.id}?tab=logs").one(role="log")
    assert log.text == "<b>loading</b> weights"
    assert "offset=23" in log["data-log-stream"]


def test_figures_of_an_engine_that_is_not_there(browser: Browser, add_instance: AddInstance) -> None:
    instance = add_instance(phase="stopped")
    assert "no engine answers" in browser.read_page(f"/instances/{instance.id}?tab=metrics").text


def test_the_playground_knows_where_to_ask(browser: Browser, add_instance: AddInstance) -> None:
    page = browser.read_page(f"/instances/{add_instance(slug='my-slug').id}?tab=playground")
    form = page.one("form", class_="composer")
    assert form["data-url"] == "/i/my-slug/v1/chat/completions"
    page.labelled("Message")
    page.button("Send")


def test_buttons_do_what_they_say(browser: Browser, add_instance: AddInstance) -> None:
    for phase, button, becomes in [
        ("running", "Stop", "stopping"),
        ("stopped", "Start", "requested"),
        ("running", "Restart", "running"),
        ("running", "Replace at once", "provisioning"),
    ]:
        instance = add_instance(f"{button} it", phase=phase)
        page = browser.read_page(f"/instances/{instance.id}")
        form = next(form for form in page.all("form") if button in form.buttons())
        assert browser.send(form).url.path == f"/instances/{instance.id}"
        shown = browser.get(f"/api/v1/instances/{instance.id}").json()
        assert shown["phase"] == becomes
        assert (shown["generation"] > instance.generation) == (button in {"Restart", "Replace at once"})


def test_terminate_asks_for_the_name(browser: Browser, add_instance: AddInstance) -> None:
    instance = add_instance("precious", phase="stopped")
    page = browser.read_page(f"/instances/{instance.id}/terminate")
    assert "API URL" in page.text
    assert "weights" in page.text
    wrong = browser.send(page.one("form", method="post", action=f"/instances/{instance.id}/terminate"), name="other")
    assert wrong.status_code == 422
    assert read(wrong.text).labelled("Name of the instance")["value"] == "other"
    assert browser.get(f"/api/v1/instances/{instance.id}").json()["phase"] == "stopped"
    form = read(wrong.text).one("form", action=f"/instances/{instance.id}/terminate")
    browser.send(form, name="precious")
    assert browser.get(f"/api/v1/instances/{instance.id}").json()["phase"] == "terminating"


def test_renaming_keeps_what_was_typed_when_it_will_not_do(browser: Browser, add_instance: AddInstance) -> None:
    add_instance("taken")
    instance = add_instance("mine")
    form = browser.read_page(f"/instances/{instance.id}?tab=settings").one(
        "form", action=f"/instances/{instance.id}/rename"
    )
    for typed, says in [("taken", "already"), ("!", "begins with"), (" ", "is needed")]:
        page = read(browser.send(form, name=typed).text)
        field = page.labelled("Name")
        assert field["value"] == typed
        assert says in page.one(id=field["aria-describedby"].split()[0]).text
    assert read(browser.send(form, name="ours").text).one("h1").text == "ours"


def test_times_are_shown_both_ways(browser: Browser, add_instance: AddInstance, clock: FakeClock) -> None:
    add_instance(created_at=clock.now() - timedelta(hours=2))
    times = {time.text for time in browser.read_page("/instances").all("time")}
    assert times == {"2 h ago"}
    assert browser.read_page("/instances").one("time")["title"] == "2025-12-31 22:00:00 UTC"
