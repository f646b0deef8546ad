"""Downloads that an agent does elsewhere: who may report, what a report changes, and what becomes of the agent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from control_plane.context import Context
from control_plane.downloads import agent_driver, agent_endpoints, agents, repository, service
from control_plane.downloads.agent_schemas import LARGEST_REPORT_BYTES
from control_plane.downloads.service import Place as Storage
from control_plane.downloads.tables import Download, DownloadState
from control_plane.keys import agent_token
from control_plane.problems import install_error_handlers
from control_plane.providers.base import FetchSpec, ReplicaState, ReplicaStatus
from control_plane.providers.fake.calls import LocalCalls
from control_plane.providers.fake.faults import Fault, Operation, Trouble
from control_plane.providers.fake.hardware import CPU
from control_plane.providers.fake.place import Place
from control_plane.providers.fake.provider import FakeFetchingProvider
from tests.control_plane.downloads.conftest import Desk, Published

THERE = Storage("fake:storage", "fake", CPU.id)


@dataclass
class Elsewhere:
    """A desk whose downloads go to an imaginary place."""

    desk: Desk
    place: Place
    context: Context
    client: TestClient

    def ensure(self, published: Published, storage: Storage | None = THERE) -> Download:
        with self.desk.database.transaction() as session:
            return service.ensure_download(
                session,
                self.context,
                endpoint=published.hub.url,
                model=published.model,
                commit_sha=published.sha,
                files=published.listing,
                place=storage,
            )

    def begin(self, published: Published) -> Download:
        """A download whose agent has been started."""
        download = self.ensure(published)
        self.drive(download)
        assert self.agent(download) is not None
        return download

    def drive(self, download: Download) -> Download:
        """What one hint does."""
        agent_driver.drive(self.context, download.id)
        return self.desk.row(download)

    def drive_until(self, download: Download, condition: Callable[[Download], bool], within_s: float = 900) -> Download:
        """What sweeps do, moving the clock to when something is due."""
        start = self.desk.clock.now()
        while not condition(row := self.desk.row(download)):
            now = self.desk.clock.now()
            assert (now - start).total_seconds() < within_s, row
            assert row.next_attempt_at is not None, f"nothing is due: {row}"
            self.desk.clock.advance(max(0.0, (row.next_attempt_at - now).total_seconds()))
            self.drive(download)
        return row

    def agent(self, download: Download) -> Any:
        return self.place.status(agents.resource_name(download.id))

    def token(self, download: Download) -> str:
        boot_token = self.desk.row(download).boot_token
        assert boot_token
        return agent_token(self.context.settings, agents.resource_name(download.id), boot_token)

    def ask(self, download_id: UUID, token: str) -> httpx.Response:
        return self.client.get(f"/agent/downloads/{download_id}", headers={"Authorization": f"Bearer {token}"})

    def report(self, download: Download, token: str | None = None, **told: object) -> httpx.Response:
        body = {"bytes_done": 0, "bytes_per_s": 1.0, "verifying": False, "files": {}} | told
        headers = {"Authorization": f"Bearer {token or self.token(download)}"}
        return self.client.post(f"/agent/downloads/{download.id}", json=body, headers=headers)


@pytest.fixture
def elsewhere(desk: Desk) -> Elsewhere:
    return make(desk)


class QueueingProvider(FakeFetchingProvider):
    """At a place that is busy, as a cluster is: agents wait."""

    def fetch(self, spec: FetchSpec) -> ReplicaStatus:
        return replace(super().fetch(spec), state=ReplicaState.PENDING, reason="0/2 nodes are available")

    def find(self, name: str) -> ReplicaStatus:
        found = super().find(name)
        if found.state is ReplicaState.ABSENT:
            return found
        return replace(found, state=ReplicaState.PENDING, reason="0/2 nodes are available")


def make(desk: Desk, kind: type[FakeFetchingProvider] = FakeFetchingProvider) -> Elsewhere:
    clock, start = desk.clock, desk.clock.now().timestamp()
    place = Place((CPU,), now_s=lambda: clock.now().timestamp() - start)
    provider = kind(LocalCalls(place, pause=lambda _: None), "owner")
    context = Context(
        desk.settings, desk.database, desk.clock, {"fake": provider}, lambda task, row: desk.hints.append((task, row))
    )
    app = FastAPI()
    app.state.context = context
    install_error_handlers(app)
    app.include_router(agent_endpoints.router)
    return Elsewhere(desk, place, context, TestClient(app))


def test_an_agent_is_started_told_what_to_fetch_heard_and_removed(
    elsewhere: Elsewhere, big: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", big.hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf-of-the-server")
    desk, download = elsewhere.desk, elsewhere.ensure(big)
    instance = desk.instance(download, "one")
    assert desk.hints == [(service.DRIVE, download.id)]
    elsewhere.drive(download)
    assert elsewhere.agent(download).state is ReplicaState.RUNNING

    job = elsewhere.ask(download.id, elsewhere.token(download)).json()
    assert [file["path"] for file in job["files"]] == [file.path for file in big.wanted]
    assert (job["endpoint"], job["commit_sha"], job["hub_token"]) == (big.hub.url, big.sha, "hf-of-the-server")
    assert job["revisions"] == ["main"]

    size = {file.path: file.size for file in big.wanted}
    told = {big.wanted[0].path: {"bytes_done": 7, "state": "downloading"}}
    assert elsewhere.report(download, bytes_done=7, files=told).json() == {"cancel": False}
    row = desk.row(download)
    assert (row.state, row.bytes_done, row.progress_at) == (DownloadState.DOWNLOADING, 7, desk.clock.now())
    assert {f.path: f.bytes_done for f in desk.files(download)} == dict.fromkeys(size, 0) | {
        path: entry["bytes_done"] for path, entry in told.items()
    }
    desk.hints.clear()

    end = {"path": "/over/there"}
    assert elsewhere.report(download, bytes_done=sum(size.values()), end=end).json() == {"cancel": False}
    assert elsewhere.report(download, bytes_done=sum(size.values()), end=end).json() == {"cancel": False}, "lost reply"
    row = desk.row(download)
    assert (row.state, row.path, row.bytes_done) == (DownloadState.DONE, "/over/there", row.bytes_total)
    assert ("instances.reconcile", instance) in desk.hints
    gone = elsewhere.drive_until(download, lambda row: row.boot_token is None)
    assert gone.next_attempt_at is None
    assert elsewhere.agent(download) is None
    assert len(elsewhere.place.boots) == 1


def test_a_hub_that_is_not_ours_gets_no_token_of_ours(
    elsewhere: Elsewhere, big: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-of-the-server")
    download = elsewhere.begin(big)
    assert elsewhere.ask(download.id, elsewhere.token(download)).json()["hub_token"] is None


def test_only_the_present_boot_is_heard(elsewhere: Elsewhere, big: Published) -> None:
    download = elsewhere.begin(big)
    old = elsewhere.token(download)
    elsewhere.place.exit(agents.resource_name(download.id), 137)
    elsewhere.desk.clock.advance(3)
    elsewhere.drive(download)
    assert elsewhere.token(download) != old

    for answer in (
        elsewhere.report(download, old, bytes_done=99),
        elsewhere.ask(download.id, old),
        elsewhere.ask(download.id, ""),
        elsewhere.ask(uuid4(), elsewhere.token(download)),
        elsewhere.report(download, "sk-slip-somebodys-key"),
    ):
        assert answer.status_code == 401
        assert answer.json()["code"] == "unknown_agent"
    assert elsewhere.desk.row(download).bytes_done == 0


def test_a_body_that_no_agent_sends_is_refused(elsewhere: Elsewhere, big: Published) -> None:
    download = elsewhere.begin(big)
    assert elsewhere.report(download, bytes_done=-1).status_code == 422
    assert elsewhere.report(download, surprise=1).status_code == 422
    assert elsewhere.report(download, bytes_per_s="fast").status_code == 422
    headers = {"Authorization": f"Bearer {elsewhere.token(download)}"}
    huge = json.dumps({"trouble": "x" * LARGEST_REPORT_BYTES})
    answer = elsewhere.client.post(f"/agent/downloads/{download.id}", content=huge, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert elsewhere.desk.row(download).state == DownloadState.QUEUED


def test_bytes_go_backwards_only_with_a_new_boot(elsewhere: Elsewhere, big: Published) -> None:
    download = elsewhere.begin(big)
    path = big.wanted[0].path

    def tell(count: int) -> tuple[int, int]:
        files = {path: {"bytes_done": count, "state": "downloading"}}
        elsewhere.report(download, bytes_done=count, files=files)
        row, file = elsewhere.desk.row(download), elsewhere.desk.files(download)[0]
        return row.bytes_done, file.bytes_done

    assert tell(20) == (20, 20)
    assert tell(10) == (20, 20), "a report that was overtaken"
    elsewhere.place.exit(agents.resource_name(download.id), 1)
    elsewhere.drive_until(download, lambda row: row.state == DownloadState.QUEUED)
    assert tell(15) == (15, 15), "another disk"
    assert tell(1 << 45) == (elsewhere.desk.row(download).bytes_total, big.wanted[0].size)


@pytest.mark.parametrize("how", ["exit", "preempt", "vanish"])
def test_a_lost_agent_is_followed_by_another_boot(elsewhere: Elsewhere, big: Published, how: str) -> None:
    download = elsewhere.begin(big)
    elsewhere.report(download, bytes_done=5)
    first, name = elsewhere.desk.row(download).boot_token, agents.resource_name(download.id)
    if how == "exit":
        elsewhere.place.exit(name, 137, "Killed\n")
    elif how == "preempt":
        elsewhere.place.preempt(name)
    else:
        elsewhere.place.forget_everything()
    row = elsewhere.drive_until(download, lambda row: row.boot_token != first)
    assert row.reason
    assert "attempt 2 of 6 follows" in row.reason
    assert ("Killed" in row.reason) == (how == "exit")
    elsewhere.drive_until(download, lambda row: elsewhere.agent(row) and elsewhere.agent(row).boot_token != first)
    assert elsewhere.agent(download).state is ReplicaState.RUNNING
    assert elsewhere.report(download, bytes_done=6).status_code == 200
    assert elsewhere.desk.row(download).attempts == 0, "it gets on"


def test_agents_that_bring_nothing_are_given_up(elsewhere: Elsewhere, big: Published) -> None:
    download = elsewhere.ensure(big)
    waiting = elsewhere.desk.instance(download, "one")
    name = agents.resource_name(download.id)

    def failed(row: Download) -> bool:
        agent = elsewhere.agent(row)
        if agent and agent.state is ReplicaState.RUNNING:
            elsewhere.place.exit(name, 2, "slipway-agent: error: no such address\n")
        return row.state == DownloadState.FAILED

    row = elsewhere.drive_until(download, failed)
    assert row.reason
    assert "no such address" in row.reason
    assert len(elsewhere.place.boots) == agents.BACKOFF.attempts
    assert ("instances.reconcile", waiting) in elsewhere.desk.hints
    elsewhere.drive_until(download, lambda row: row.boot_token is None)
    assert elsewhere.agent(download) is None

    again = elsewhere.ensure(big)
    assert (again.id, again.state) == (download.id, DownloadState.QUEUED)
    elsewhere.drive(again)
    assert elsewhere.report(again).status_code == 200


def test_a_silent_agent_is_looked_after_and_replaced_in_the_end(elsewhere: Elsewhere, big: Published) -> None:
    desk, download = elsewhere.desk, elsewhere.begin(big)
    first = desk.row(download).boot_token
    elsewhere.report(download, bytes_done=5)
    assert service.sweep(elsewhere.context) == []
    desk.clock.advance(agents.SILENT_S)
    assert service.sweep(elsewhere.context) == [download.id]
    row = elsewhere.drive(download)
    assert (row.reason, row.boot_token) == (f"the agent has been silent for {agents.SILENT_S:.0f} s", first)
    elsewhere.report(download, bytes_done=6)
    assert (desk.row(download).state, desk.row(download).reason) == (DownloadState.DOWNLOADING, None)

    row = elsewhere.drive_until(download, lambda row: row.boot_token != first)
    assert "has not reported" in (row.reason or "")


def test_cancelling_tells_the_agent_and_removes_it(elsewhere: Elsewhere, big: Published) -> None:
    desk, download = elsewhere.desk, elsewhere.begin(big)
    instance = desk.instance(download, "one")
    elsewhere.report(download, bytes_done=5)
    desk.hints.clear()
    with desk.database.transaction() as session:
        row = session.get_one(type(download), download.id)
        assert not service.cancel(session, elsewhere.context, row), "somebody waits for it"
    assert desk.give_up(instance, download)
    assert desk.row(download).state == DownloadState.CANCELLED
    assert elsewhere.report(download, bytes_done=6).json() == {"cancel": True}
    assert elsewhere.ask(download.id, elsewhere.token(download)).status_code == 409
    elsewhere.place.faults.plan(Operation.DELETE, Fault(Trouble.UNANSWERED), times=3)
    elsewhere.drive_until(download, lambda row: row.boot_token is None)
    assert elsewhere.agent(download) is None


def test_nothing_is_believed_of_a_place_that_does_not_answer(elsewhere: Elsewhere, big: Published) -> None:
    elsewhere.place.faults.away = True
    download = elsewhere.ensure(big)
    row = elsewhere.drive(download)
    assert (row.state, row.reason) == (DownloadState.QUEUED, "the imaginary place is out of reach")
    elsewhere.place.faults.away = False
    elsewhere.place.faults.plan(Operation.CREATE, Fault(Trouble.LOST_REPLY))
    elsewhere.drive_until(download, lambda row: elsewhere.agent(row) is not None)
    elsewhere.drive_until(download, lambda row: row.reason != "the imaginary place does not answer")
    assert len(elsewhere.place.boots) == 1


def test_an_agent_that_waits_says_for_what(desk: Desk, big: Published) -> None:
    full = make(desk, QueueingProvider)
    download = full.ensure(big)
    row = full.drive(download)
    assert row.state == DownloadState.QUEUED
    assert row.reason == "0/2 nodes are available"
    first = row.boot_token
    for _ in range(30):
        desk.clock.advance(10)
        row = full.drive(download)
    assert row.boot_token == first, "waiting for hardware is no fault of the agent's"
    with desk.database.reading() as session:
        shown = service.find_progress(session, full.context, download.id)
    assert shown is not None
    assert shown.reason == row.reason


def test_a_place_that_refuses_is_the_end(elsewhere: Elsewhere, big: Published) -> None:
    elsewhere.place.faults.plan(Operation.CREATE, Fault(Trouble.REFUSED, detail="no agents here"))
    row = elsewhere.drive(elsewhere.ensure(big))
    assert (row.state, row.reason, row.next_step) == (DownloadState.FAILED, "no agents here", "Ask for something else.")


def test_what_the_hub_refuses_is_told_and_what_may_pass_is_tried_again(elsewhere: Elsewhere, big: Published) -> None:
    download = elsewhere.begin(big)
    first = elsewhere.token(download)
    passing = {"reason": "the hub is busy", "transient": True, "retry_after_s": 100}
    assert elsewhere.report(download, bytes_done=3, end=passing).status_code == 200
    row = elsewhere.desk.row(download)
    assert row.state == DownloadState.QUEUED
    assert row.next_attempt_at is not None
    assert (row.next_attempt_at - elsewhere.desk.clock.now()).total_seconds() >= 100
    assert elsewhere.report(download, first, end=passing).status_code == 401, "that boot is over"

    elsewhere.drive_until(download, lambda row: getattr(elsewhere.agent(row), "boot_token", None) == row.boot_token)
    elsewhere.report(download, end={"reason": "gated", "next_step": "Ask its owner."})
    row = elsewhere.desk.row(download)
    assert (row.state, row.reason, row.next_step) == (DownloadState.FAILED, "gated", "Ask its owner.")


def test_each_storage_has_its_own_download(elsewhere: Elsewhere, big: Published) -> None:
    here, there = elsewhere.ensure(big, None), elsewhere.ensure(big)
    other = elsewhere.ensure(big, Storage("fake:other", "fake", CPU.id))
    assert len({here.id, there.id, other.id}) == 3
    assert elsewhere.ensure(big).id == there.id
    elsewhere.desk.hints.clear()
    assert set(service.sweep(elsewhere.context)) == {here.id, there.id, other.id}
    assert set(elsewhere.desk.hints) == {
        (service.RUN, here.id),
        (service.DRIVE, there.id),
        (service.DRIVE, other.id),
    }, "no worker fetches what belongs elsewhere"
    elsewhere.drive(here)
    with elsewhere.desk.database.reading() as session:
        row = repository.get(session, here.id)
    assert row is not None
    assert row.lease_token is None
    assert list(elsewhere.place.present()) == []


def test_a_clock_that_is_set_back_holds_nothing_up(elsewhere: Elsewhere, big: Published) -> None:
    desk, download = elsewhere.desk, elsewhere.begin(big)
    elsewhere.report(download, bytes_done=5)
    here = elsewhere.ensure(big, None)
    with desk.database.transaction() as session:
        row = session.get_one(Download, here.id)
        row.next_attempt_at = desk.clock.now()
        session.add(row)
    desk.clock.advance(-3600)
    assert set(service.sweep(elsewhere.context)) == {here.id, download.id}
    assert elsewhere.drive(download).state == DownloadState.QUEUED, "it is looked after"
    assert desk.run(here).state == DownloadState.DONE
    elsewhere.report(download, bytes_done=6)
    assert desk.row(download).state == DownloadState.DOWNLOADING
