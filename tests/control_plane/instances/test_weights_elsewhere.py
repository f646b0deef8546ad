"""Instances whose replicas cannot read this machine's disk: an agent brings the weights before hardware is held."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import select

from control_plane.downloads import agent_driver, agents
from control_plane.downloads.agent_schemas import AgentEnd, AgentReport
from control_plane.downloads.tables import Download, DownloadState
from control_plane.instances import service
from control_plane.instances.schemas import InstanceView
from control_plane.keys import agent_token
from control_plane.providers.base import FetchSpec, ReplicaStatus, WeightsMissing
from tests.hub.models import tiny_llama
from tests.hub.server import HubServer
from tests.support.fake_provider import FakeProvider
from tests.support.instances import Plant

TEMPLATED = "baichuan-inc/Baichuan2-7B-Chat"


class Elsewhere(FakeProvider):
    """A provider with storage of its own; agents are found and deleted like replicas."""

    def location(self, hardware_id: str) -> str:
        return f"storage-of-{hardware_id}"

    def fetch(self, spec: FetchSpec) -> ReplicaStatus:
        return self.create(spec)  # type: ignore[arg-type] (it reads what both kinds have)


@pytest.fixture
def plant(plant: Plant) -> Plant:
    """One provider, of that kind."""
    plant.provider = Elsewhere()
    plant.context.providers["fake"] = plant.provider  # type: ignore[index] (a dict, as the plant makes it)
    return plant


@pytest.fixture
def launched(plant: Plant, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstanceView:
    """An instance whose weights an agent is to bring."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    publish(hub, tmp_path / "tiny", "org/tiny")
    return plant.run_until(plant.launch("org/tiny").id, "downloading")


def publish(hub: HubServer, folder: Path, model: str, *, template: bool = True) -> None:
    tiny_llama(folder)
    if not template:
        (folder / "tokenizer_config.json").write_text("{}")
    hub.add_repo(model, folder)


def download_of(plant: Plant) -> Download:
    with plant.context.database.reading() as session:
        return session.exec(select(Download)).one()


def report(plant: Plant, **told: object) -> bool:
    """What the present agent says."""
    download = download_of(plant)
    assert download.boot_token
    token = agent_token(plant.context.settings, agents.resource_name(download.id), download.boot_token)
    body = AgentReport.model_validate({"bytes_done": 0, "bytes_per_s": 0.0, "verifying": False} | told)
    return agents.report(plant.context, download.id, token, body)


def deliver(plant: Plant) -> None:
    """An agent is started, and brings everything."""
    agent_driver.drive(plant.context, download_of(plant).id)
    report(plant, end=AgentEnd(path="/there").model_dump())


def test_two_instances_share_what_one_agent_brings_and_pay_nothing_meanwhile(
    plant: Plant, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    publish(hub, tmp_path / "tiny", "org/tiny")
    first, second = plant.launch("org/tiny"), plant.launch("org/tiny")
    for launched in (first, second):
        plant.run_until(launched.id, "downloading")
    download = download_of(plant)
    assert (download.location, download.provider, download.hardware) == ("storage-of-fake-cpu", "fake", "fake-cpu")
    agent_driver.drive(plant.context, download.id)
    agent_driver.drive(plant.context, download.id)
    report(plant, bytes_done=100, bytes_per_s=50.0)
    shown = plant.get(first.id).download
    assert shown is not None
    assert (shown.bytes_done, shown.bytes_per_s) == (100, 50.0)
    plant.clock.advance(1000)
    assert plant.get(first.id).cost_so_far == 0

    report(plant, end=AgentEnd(path="/there").model_dump())
    for launched in (first, second):
        plant.run_until(launched.id, "running")
    agent, *engines = plant.provider.specs
    assert agent.name == agents.resource_name(download.id)
    assert [(spec.weights.path, spec.weights.commit_sha) for spec in engines] == [(None, download.commit_sha)] * 2

    service.stop(plant.context, plant.principal, first.id)
    plant.run_until(first.id, "stopped")
    service.start(plant.context, plant.principal, first.id)
    plant.run_until(first.id, "running")
    assert len([spec for spec in plant.provider.specs if spec.name == agent.name]) == 1, "fetched once"


def test_what_has_vanished_from_the_provider_s_storage_is_fetched_again_at_the_next_start(
    plant: Plant, launched: InstanceView
) -> None:
    deliver(plant)
    first_agent = download_of(plant).boot_token
    plant.provider.fail_before["create"].append(WeightsMissing("the folder is not there", "Start again."))
    failed = plant.run_until(launched.id, "failed")
    assert (failed.reason, failed.next_step) == ("the folder is not there", "Start again.")
    assert download_of(plant).state == DownloadState.FAILED

    service.start(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "downloading")
    assert download_of(plant).boot_token != first_agent, "another agent"
    deliver(plant)
    plant.run_until(launched.id, "running")


def test_bundled_models_need_no_agent(plant: Plant) -> None:
    plant.run_until(plant.launch().id, "running")
    (spec,) = plant.provider.specs
    assert spec.weights.path is not None


@pytest.mark.parametrize("has_its_own", [False, True])
def test_the_catalog_s_template_reaches_an_engine_whose_files_cannot_be_looked_into(
    plant: Plant, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_its_own: bool
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    publish(hub, tmp_path / "tiny", TEMPLATED, template=has_its_own)
    launched = plant.launch(TEMPLATED)
    plant.run_until(launched.id, "downloading")
    deliver(plant)
    plant.run_until(launched.id, "running")
    options = plant.provider.specs[-1].engine_options
    assert options.get("chat-template") == (None if has_its_own else "baichuan2")


def test_an_agent_that_fails_is_the_instances_reason(plant: Plant, launched: InstanceView) -> None:
    agent_driver.drive(plant.context, download_of(plant).id)
    end = AgentEnd(reason="the disk is full; what was fetched is kept", next_step="Free space there.")
    report(plant, end=end.model_dump())
    failed = plant.run_until(launched.id, "failed")
    assert failed.reason == "the download failed: the disk is full; what was fetched is kept"
    assert failed.next_step == "Free space there."


def test_terminating_ends_the_agent_too(plant: Plant, launched: InstanceView) -> None:
    agent_driver.drive(plant.context, download_of(plant).id)
    assert len(plant.provider.replicas) == 1
    service.terminate(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "terminated")
    assert report(plant, bytes_done=1), "the agent is told to stop"
    while (download := download_of(plant)).next_attempt_at is not None:
        plant.clock.advance(max(0.0, (download.next_attempt_at - plant.clock.now()).total_seconds()))
        agent_driver.drive(plant.context, download.id)
    assert (download.state, download.boot_token) == (DownloadState.CANCELLED, None)
    assert plant.provider.replicas == {}
