"""Launching: what is refused before anything is spent, and what is accepted exactly once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.errors import Conflict, Invalid, SlipwayError
from control_plane.hub.errors import GatedRepository, HubUnreachable, InvalidModelId, RepositoryNotFound
from control_plane.instances import service
from control_plane.instances.admission import DoesNotFit, NotServed, UnknownHardware
from control_plane.instances.schemas import InstanceUpdate, LaunchRequest
from tests.hub.models import tiny_llama
from tests.hub.server import HubServer
from tests.support.fake_provider import OFFER
from tests.support.instances import STARTER, Plant


@pytest.fixture(autouse=True)
def _hub_is_the_tests_own(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)


def _refused(plant: Plant, kind: type[SlipwayError], model: str = STARTER, **fields: object) -> SlipwayError:
    with pytest.raises(kind) as caught:
        plant.launch(model, **fields)
    assert caught.value.next_step
    assert service.list_instances(plant.context, plant.principal).items == []
    assert plant.hints == []
    return caught.value


def test_what_the_hub_says_is_what_the_user_hears(plant: Plant, hub: HubServer, tmp_path: Path) -> None:
    hub.add_repo("org/gated", tiny_llama(tmp_path / "gated"), gated=True)
    _refused(plant, GatedRepository, "org/gated")
    _refused(plant, RepositoryNotFound, "org/missing")
    _refused(plant, InvalidModelId, "../../etc/passwd")


def test_a_dead_hub(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert _refused(plant, HubUnreachable, "org/tiny").status == 503


def test_an_architecture_that_is_not_served(plant: Plant, hub: HubServer, tmp_path: Path) -> None:
    hub.add_repo("org/other", tiny_llama(tmp_path / "other", architectures=["MambaForCausalLM"], model_type="mamba"))
    assert "MambaForCausalLM is a state-space or recurrent model" in _refused(plant, NotServed, "org/other").detail
    assert not hub.requests_for("*.safetensors")


def test_what_does_not_fit(plant: Plant) -> None:
    plant.provider.offered = [replace(OFFER, memory_bytes=100 << 20)]
    assert "fake-cpu:" in _refused(plant, DoesNotFit).detail
    plant.provider.offered = []
    assert "there is no hardware" in _refused(plant, DoesNotFit).detail


def test_the_hardware_that_is_chosen(plant: Plant) -> None:
    gpu = replace(OFFER, id="gpu", accelerator="NVIDIA H200", accelerator_count=1, price_per_hour=4.0)
    dear = replace(gpu, id="dear-gpu", price_per_hour=9.0)
    away = replace(gpu, id="away-gpu", price_per_hour=1.0, available=False, why_unavailable="in use")
    plant.provider.offered = [OFFER, dear, away, gpu]
    assert plant.launch().hardware == "gpu"
    assert plant.launch(hardware="fake-cpu").hardware == "fake-cpu"
    with pytest.raises(UnknownHardware, match="fake-cpu, dear-gpu, away-gpu, gpu"):
        plant.launch(hardware="tpu")


def test_replicas_do_not_scale_yet(plant: Plant) -> None:
    _refused(plant, Invalid, replicas={"min": 1, "max": 2})


def test_a_name_is_one_instances_until_it_is_terminated(plant: Plant) -> None:
    first = plant.launch(name="chat")
    with pytest.raises(Conflict, match="already an instance named 'chat'"):
        plant.launch(name="chat")
    service.terminate(plant.context, plant.principal, first.id)
    with pytest.raises(Conflict):
        plant.launch(name="chat")
    plant.run_until(first.id, "terminated")
    second = plant.launch(name="chat")
    assert second.slug != first.slug, "an old URL never reaches a new instance"
    assert second.slug.startswith("chat-")


def test_rename_keeps_the_url(plant: Plant) -> None:
    first, second = plant.launch(name="one"), plant.launch(name="two")
    renamed = service.update(plant.context, plant.principal, first.id, InstanceUpdate(name="uno"))
    assert (renamed.name, renamed.api_url) == ("uno", first.api_url)
    assert plant.timeline(first.id)[-1] == "instance.renamed"
    with pytest.raises(Conflict, match="already an instance named 'uno'"):
        service.update(plant.context, plant.principal, second.id, InstanceUpdate(name="uno"))


def test_the_same_idempotency_key_makes_one_instance(plant: Plant) -> None:
    request = LaunchRequest(model=STARTER)

    def send(_: int) -> object:
        return service.launch(plant.context, plant.principal, request, idempotency_key="key-1").id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(send, range(8)))) == 1
    with pytest.raises(Conflict, match="different request"):
        service.launch(plant.context, plant.principal, LaunchRequest(model=STARTER, name="x"), idempotency_key="key-1")
    assert len(service.list_instances(plant.context, plant.principal).items) == 1


def test_a_list_goes_on_where_it_stopped(plant: Plant) -> None:
    ids = [plant.launch().id for _ in range(5)][::-1]
    service.terminate(plant.context, plant.principal, ids[0])
    plant.run_until(ids[0], "terminated")

    first = service.list_instances(plant.context, plant.principal, limit=3)
    assert [item.id for item in first.items] == ids[:3]
    assert first.next_cursor == str(ids[2])
    rest = service.list_instances(plant.context, plant.principal, limit=3, cursor=ids[2])
    assert [item.id for item in rest.items] == ids[3:]
    assert rest.next_cursor is None
    assert [item.id for item in service.list_instances(plant.context, plant.principal, live=True).items] == ids[1:]
