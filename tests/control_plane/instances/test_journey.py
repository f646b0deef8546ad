"""An instance's life with a provider that behaves: from launch to the end, and what is held and paid on the way."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from sqlmodel import select

from control_plane.accounts.tables import User
from control_plane.downloads.tables import Download, DownloadState
from control_plane.errors import Conflict, NotFound
from control_plane.instances import service
from control_plane.instances.reconcile import sweep
from control_plane.instances.schemas import RestartMode
from control_plane.keys import replica_key
from tests.hub.models import tiny_llama
from tests.hub.server import HubServer
from tests.support.instances import STARTER, Plant, add_principal


@pytest.fixture
def tiny_on_hub(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A hub with org/tiny, which is where launches look."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.add_repo("org/tiny", tiny_llama(tmp_path / "tiny"))
    return hub


def test_a_local_model_needs_no_download(plant: Plant) -> None:
    launched = plant.launch(name="first")
    assert plant.hints == [("instances.reconcile", launched.id)]
    instance = plant.run_until(launched.id, "running")

    assert plant.timeline(launched.id) == [
        f"instance.{phase}" for phase in ("requested", "provisioning", "starting", "running")
    ]
    assert instance.replicas[0].ready
    assert instance.direct_url == f"{instance.replicas[0].url}/v1"
    assert instance.api_url.endswith(f"/i/{instance.slug}/v1")
    (spec,) = plant.provider.specs
    assert spec.served_model_name == STARTER
    assert spec.weights.path.joinpath("config.json").is_file()
    assert spec.api_key == replica_key(plant.context.settings, spec.name, spec.boot_token)
    assert spec.engine_options == {"quantization": "auto"}


def test_options_reach_the_engine(plant: Plant) -> None:
    options = {"max_model_len": 128, "dtype": "float32"}
    launched = plant.launch(engine=options, quantization="none", replicas={"min": 3, "max": 3})
    instance = plant.run_until(launched.id, "running")

    assert [replica.ordinal for replica in instance.replicas] == [0, 1, 2]
    assert len({spec.name for spec in plant.provider.specs}) == 3
    assert len({spec.api_key for spec in plant.provider.specs}) == 3
    expected = {"max-model-len": "128", "dtype": "float32", "quantization": "none"}
    assert all(spec.engine_options == expected for spec in plant.provider.specs)
    assert instance.price_per_hour == pytest.approx(3 * 3.6)


@pytest.mark.parametrize("has_its_own", [False, True])
def test_old_chat_models_get_the_catalog_s_template_unless_they_bring_one(
    plant: Plant, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_its_own: bool
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    folder = tiny_llama(tmp_path / "tiny")
    if not has_its_own:
        (folder / "tokenizer_config.json").write_text("{}")
    hub.add_repo("baichuan-inc/Baichuan2-7B-Chat", folder)
    launched = plant.launch("baichuan-inc/Baichuan2-7B-Chat")
    plant.run_until(launched.id, "downloading")
    with plant.context.database.transaction() as session:
        row = session.exec(select(Download)).one()
        row.state, row.path = DownloadState.DONE, str(folder)
    plant.run_until(launched.id, "running")
    (spec,) = plant.provider.specs
    assert spec.engine_options.get("chat-template") == (None if has_its_own else "baichuan2")


def test_hub_models_share_one_download_and_nothing_is_billed_meanwhile(
    plant: Plant, tiny_on_hub: HubServer, tmp_path: Path
) -> None:
    first, second = plant.launch("org/tiny"), plant.launch("org/tiny")
    assert (first.name, second.name) == ("tiny", "tiny-2")
    for launched in (first, second):
        plant.run_until(launched.id, "downloading")
        plant.step(launched.id)
    with plant.context.database.reading() as session:
        (download,) = session.exec(select(Download)).all()
    assert plant.row(first.id).download_id == plant.row(second.id).download_id == download.id
    assert download.commit_sha == first.commit_sha

    plant.clock.advance(3600)
    assert plant.get(first.id).cost_so_far == 0
    assert plant.get(first.id).download is not None

    with plant.context.database.transaction() as session:
        row = session.get_one(Download, download.id)
        row.state, row.path = DownloadState.DONE, str(tmp_path / "tiny")
    for launched in (first, second):
        assert plant.run_until(launched.id, "running").cost_so_far < 0.01
    plant.clock.advance(3600)
    assert plant.get(first.id).cost_so_far == pytest.approx(3.6, rel=0.01)


@pytest.mark.parametrize(
    ("state", "reason", "next_step"),
    [
        (DownloadState.FAILED, "the download failed: the disk is full", "Make room."),
        (DownloadState.CANCELLED, "the download was cancelled", "Start the instance again; what was fetched is kept."),
    ],
)
def test_a_download_that_ends_badly_is_the_instances_reason(
    plant: Plant, tiny_on_hub: HubServer, *, state: DownloadState, reason: str, next_step: str
) -> None:
    launched = plant.launch("org/tiny")
    plant.run_until(launched.id, "downloading")
    with plant.context.database.transaction() as session:
        row = session.exec(select(Download)).one()
        row.state, row.reason, row.next_step = state, "the disk is full", "Make room."

    instance = plant.run_until(launched.id, "failed")

    assert (instance.reason, instance.next_step) == (reason, next_step)
    assert plant.provider.specs == []


def test_the_hub_may_be_gone_when_a_stopped_instance_starts_again(
    plant: Plant, tiny_on_hub: HubServer, tmp_path: Path
) -> None:
    launched = plant.launch("org/tiny")
    plant.run_until(launched.id, "downloading")
    with plant.context.database.transaction() as session:
        row = session.exec(select(Download)).one()
        row.state, row.path = DownloadState.DONE, str(tmp_path / "tiny")
    plant.run_until(launched.id, "running")
    service.stop(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "stopped")
    requests = len(tiny_on_hub.requests)

    service.start(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "running")

    assert len(tiny_on_hub.requests) == requests


def test_offline_what_is_in_the_cache_is_served(
    plant: Plant, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo("org/tiny", tiny_llama(tmp_path / "tiny"))
    cache = tmp_path / "home" / "hub"
    snapshot = huggingface_hub.snapshot_download("org/tiny", endpoint=hub.url, cache_dir=cache)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    requests = len(hub.requests)

    plant.run_until(plant.launch("org/tiny").id, "running")

    assert [str(spec.weights.path) for spec in plant.provider.specs] == [snapshot]
    assert len(hub.requests) == requests


def test_stop_start_terminate(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.clock.advance(1000)

    stopping = service.stop(plant.context, plant.principal, launched.id)
    assert (stopping.phase, stopping.desired) == ("stopping", "stopped")
    stopped = plant.run_until(launched.id, "stopped")
    assert plant.provider.replicas == {}
    assert stopped.direct_url is None
    assert stopped.next_attempt_at is None
    cost = stopped.cost_so_far
    assert cost == pytest.approx(3.6 * 1000 / 3600, rel=0.02)
    plant.clock.advance(5000)
    assert plant.get(launched.id).cost_so_far == cost

    service.start(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "running")
    assert len({spec.boot_token for spec in plant.provider.specs}) == 2, "each start is another boot"

    service.terminate(plant.context, plant.principal, launched.id)
    ended = plant.run_until(launched.id, "terminated")
    assert ended.terminated_at == plant.clock.now()
    assert plant.provider.replicas == {}
    assert not plant.step(launched.id)
    for change in (service.start, service.stop, service.restart):
        with pytest.raises(Conflict):
            change(plant.context, plant.principal, launched.id)
    assert service.terminate(plant.context, plant.principal, launched.id).phase == "terminated"


def test_a_restart_is_a_new_boot_after_the_old_one_has_ended(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.deletes_take_effect = False

    service.restart(plant.context, plant.principal, launched.id, RestartMode.REPLACE)
    plant.step(launched.id)
    waiting = plant.get(launched.id)
    assert (waiting.phase, waiting.reason) == ("provisioning", "waiting for the engine of the earlier boot to end")
    assert len(plant.provider.specs) == 1

    plant.provider.deletes_take_effect = True
    plant.run_until(launched.id, "running")
    assert len(plant.provider.specs) == 2


def test_terminated_only_when_absent_twice(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    service.terminate(plant.context, plant.principal, launched.id)
    plant.provider.deletes_take_effect = False
    for _ in range(10):
        plant.step(launched.id)
    assert plant.get(launched.id).phase == "terminating"
    assert "waiting for 1 engine" in plant.get(launched.id).reason

    plant.clock.advance(200)
    plant.step(launched.id)
    assert "takes longer than 120 s" in plant.get(launched.id).reason

    plant.provider.deletes_take_effect = True
    plant.step(launched.id)  # this deletes
    plant.step(launched.id)  # absent once
    assert plant.get(launched.id).phase == "terminating"
    plant.step(launched.id)
    assert plant.get(launched.id).phase == "terminated"


def test_the_sweep_finds_what_is_due_and_nobodys(plant: Plant) -> None:
    waiting, resting = plant.launch(), plant.launch()
    service.stop(plant.context, plant.principal, resting.id)
    plant.run_until(resting.id, "stopped")
    plant.hints.clear()

    assert sweep(plant.context) == [waiting.id]
    assert plant.hints == [("instances.reconcile", waiting.id)]
    plant.run_until(waiting.id, "running")
    assert sweep(plant.context) == []
    plant.clock.advance(2)
    assert sweep(plant.context) == [waiting.id]


def test_another_teams_instance_does_not_exist(plant: Plant) -> None:
    launched = plant.launch(name="mine")
    stranger = add_principal(plant.context, "eve")
    context = plant.context
    for call in (service.get, service.events, service.stop, service.start, service.terminate, service.direct_access):
        with pytest.raises(NotFound):
            call(context, stranger, launched.id)  # type: ignore[operator]
    assert service.list_instances(context, stranger).items == []
    assert [item.id for item in service.list_instances(context, plant.principal).items] == [launched.id]
    with context.database.reading() as session:
        assert len(session.exec(select(User)).all()) == 2
