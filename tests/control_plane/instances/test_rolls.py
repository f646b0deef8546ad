"""Restarts, other engines, more and fewer replicas of an instance that serves: it goes on serving."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from control_plane.errors import Conflict, Invalid
from control_plane.instances import service
from control_plane.instances.admission import DoesNotFit
from control_plane.instances.reconcilers.fleet import NO_ROOM_AFTER_S
from control_plane.instances.reconcilers.tend import LEAVE_AFTER_S
from control_plane.instances.replicas import MAX_RESTARTS
from control_plane.instances.schemas import EngineOptions, InstanceUpdate, InstanceView, ReplicaCount, RestartMode
from control_plane.providers.base import ProviderError, ReplicaState
from tests.support.instances import Plant

#: What is tried here is decided outside the database; the other files of this folder try both kinds.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def _is_settled(instance: InstanceView) -> bool:
    current = [replica for replica in instance.replicas if replica.generation == instance.generation and replica.ready]
    return len(current) == len(instance.replicas) == instance.replica_count


def _settle(plant: Plant, instance_id: UUID, *, serving: int, most: int = 4) -> InstanceView:
    """Step until every replica is of the present generation; at no time do fewer than ``serving`` answer."""
    for _ in range(120):
        instance = plant.get(instance_id)
        if _is_settled(instance):
            return instance
        assert sum(replica.ready for replica in instance.replicas) >= serving, instance.reason
        assert len(instance.replicas) <= most
        plant.step(instance_id)
    raise AssertionError(f"not settled: {plant.get(instance_id)}")


def _change(plant: Plant, instance_id: UUID, **fields: object) -> InstanceView:
    wanted = InstanceUpdate.model_validate(fields)
    return service.update(plant.context, plant.principal, instance_id, wanted)


@pytest.mark.parametrize("count", [1, 3])
def test_a_restart_replaces_one_engine_after_another(plant: Plant, count: int) -> None:
    launched = plant.launch(replicas={"min": count, "max": count})
    plant.run_until(launched.id, "running")
    before = {spec.boot_token for spec in plant.provider.specs}

    asked = service.restart(plant.context, plant.principal, launched.id)
    assert (asked.phase, asked.generation) == ("running", 1)
    plant.step(launched.id)
    plant.step(launched.id)
    assert f"0 of {count} engines are replaced" in plant.get(launched.id).reason
    settled = _settle(plant, launched.id, serving=count, most=count + 1)

    assert settled.phase == "running"
    boots = {status.boot_token for status in plant.provider.replicas.values()}
    assert len(boots) == count
    assert not boots & before
    assert len(plant.provider.specs) == 2 * count
    timeline = plant.timeline(launched.id)
    assert timeline.count("instance.restarted") == 1
    assert timeline.count("instance.replica_removed") == count
    assert timeline.count("instance.provisioning") == 1, "it never stopped running"
    plant.step(launched.id)
    assert plant.get(launched.id).reason == "answering requests"


def test_a_leaver_gets_no_requests_for_a_moment_before_it_is_told_to_end(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    old = plant.name_of(launched.id)
    service.restart(plant.context, plant.principal, launched.id)
    while plant.get(launched.id).replicas[0].retiring_since is None:
        plant.step(launched.id)
        assert plant.provider.replicas[old].state is ReplicaState.RUNNING
    told = plant.clock.now()
    leaver = plant.get(launched.id).replicas[0]
    assert (leaver.ready, leaver.condition) == (False, "finishing its requests")
    while old in plant.provider.replicas:
        plant.step(launched.id)
    assert (plant.clock.now() - told).total_seconds() >= LEAVE_AFTER_S
    assert old in {replica.resource_name for replica in plant.replicas(launched.id)}, "absent once is not enough"
    _settle(plant, launched.id, serving=1)


def test_other_engine_options_reach_new_engines_while_the_old_ones_serve(plant: Plant) -> None:
    launched = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(launched.id, "running")
    _change(plant, launched.id, engine={"max_model_len": 128})
    _settle(plant, launched.id, serving=2)
    options = [spec.engine_options.get("max-model-len") for spec in plant.provider.specs]
    assert options == [None, None, "128", "128"]

    assert _change(plant, launched.id, engine={"max_model_len": 128}).generation == 1, "nothing is different"
    with pytest.raises(Invalid):
        _change(plant, launched.id, engine={"max_model_len": 1 << 24})
    assert plant.get(launched.id).engine == {"max_model_len": 128}


def test_the_present_engine_does_not_stand_in_its_successors_way(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    held = plant.row(launched.id).memory_bytes
    assert held > 0
    (offer,) = plant.provider.offered
    plant.provider.offered = [replace(offer, memory_bytes=held // 2)]  # what it left free
    assert _change(plant, launched.id, engine={"max_model_len": 128}).generation == 1
    with pytest.raises(DoesNotFit):
        _change(plant, launched.id, engine={"kv_cache_memory": 2 * held})
    service.stop(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "stopped")
    with pytest.raises(DoesNotFit):
        _change(plant, launched.id, engine={"max_model_len": 64})


def test_more_and_fewer_replicas_and_what_they_cost(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.clock.advance(3600)
    assert plant.get(launched.id).cost_so_far == pytest.approx(3.6, rel=0.01)

    grown = _change(plant, launched.id, replicas={"min": 3, "max": 3})
    assert (grown.replica_count, grown.price_per_hour, grown.generation) == (3, pytest.approx(10.8), 0)
    assert grown.cost_so_far == pytest.approx(3.6, rel=0.01), "the past is not paid at the new price"
    _settle(plant, launched.id, serving=1)
    plant.clock.advance(3600)
    assert plant.get(launched.id).cost_so_far == pytest.approx(14.4, rel=0.01)

    _change(plant, launched.id, replicas={"min": 1, "max": 1})
    _settle(plant, launched.id, serving=1)
    assert len(plant.provider.replicas) == 1
    plant.clock.advance(3600)
    assert plant.get(launched.id).cost_so_far == pytest.approx(18, rel=0.02)
    for fields in ({"replicas": {"min": 1, "max": 2}}, {"replicas": {"min": 0, "max": 0}}):
        with pytest.raises((Invalid, ValueError)):
            _change(plant, launched.id, **fields)


def test_what_is_stopped_has_the_new_number_when_it_starts(plant: Plant) -> None:
    launched = plant.launch(replicas={"min": 3, "max": 3})
    plant.run_until(launched.id, "running")
    service.stop(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "stopped")
    _change(plant, launched.id, replicas={"min": 2, "max": 2}, engine={"max_model_len": 64})
    service.start(plant.context, plant.principal, launched.id)
    plant.run_until(launched.id, "running")
    _settle(plant, launched.id, serving=0)
    assert [spec.engine_options.get("max-model-len") for spec in plant.provider.specs[3:]] == ["64", "64"]


def test_what_is_on_its_way_out_is_not_changed(plant: Plant) -> None:
    launched = plant.launch()
    service.terminate(plant.context, plant.principal, launched.id)
    for wanted in (InstanceUpdate(engine=EngineOptions()), InstanceUpdate(replicas=ReplicaCount(min=2, max=2))):
        with pytest.raises(Conflict, match="terminating"):
            service.update(plant.context, plant.principal, launched.id, wanted)


def test_a_new_engine_that_does_not_come_up_stops_the_roll(plant: Plant) -> None:
    launched = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(launched.id, "running")
    _change(plant, launched.id, engine={"dtype": "float16"})
    for _ in range(MAX_RESTARTS + 1):
        while len(running := _running(plant)) < 3:
            plant.step(launched.id)
        newest = max(running, key=lambda name: plant.replicas(launched.id)[-1].resource_name == name)
        plant.provider.exit(newest, 1, "no kernel for float16\n")
        plant.step(launched.id)
    for _ in range(20):
        plant.step(launched.id)

    stopped = plant.get(launched.id)
    assert stopped.phase == "running"
    assert "the restart has stopped" in stopped.reason
    assert "no kernel for float16" in stopped.reason
    assert [replica.ready for replica in stopped.replicas] == [True, True, False]
    assert len(plant.provider.specs) == 2 + MAX_RESTARTS + 1, "it is not tried for ever"

    _change(plant, launched.id, engine={})
    _settle(plant, launched.id, serving=2)


def _running(plant: Plant) -> list[str]:
    return [name for name, status in plant.provider.replicas.items() if status.state is ReplicaState.RUNNING]


def test_where_there_is_no_room_it_says_what_to_do(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.full = "all 1 devices are in use"
    service.restart(plant.context, plant.principal, launched.id)
    for _ in range(round(NO_ROOM_AFTER_S) + 10):
        plant.step(launched.id)
    stuck = plant.get(launched.id)
    assert "no room for a new engine beside the old one: all 1 devices are in use" in stuck.reason
    assert "mode=replace" in (stuck.next_step or "")
    assert [replica.ready for replica in stuck.replicas] == [True, False]

    plant.provider.full = None
    service.restart(plant.context, plant.principal, launched.id, RestartMode.REPLACE)
    plant.run_until(launched.id, "running")
    _settle(plant, launched.id, serving=0)


def test_where_there_is_no_room_one_of_two_makes_it(plant: Plant) -> None:
    launched = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(launched.id, "running")
    service.restart(plant.context, plant.principal, launched.id)
    provider = plant.provider
    create = provider.create

    def create_where_there_is_room(spec):  # type: ignore[no-untyped-def]
        provider.full = None if len(provider.replicas) < 2 else "Resources"
        return create(spec)

    provider.create = create_where_there_is_room  # type: ignore[method-assign]
    for _ in range(300):
        if _is_settled(plant.get(launched.id)):
            break
        plant.step(launched.id)
        assert any(replica.ready for replica in plant.get(launched.id).replicas)
        for name, status in provider.replicas.items():
            if status.state is ReplicaState.PENDING and len(provider.replicas) <= 2:
                provider.run(name)
                break
    assert _is_settled(plant.get(launched.id))


def test_a_provider_that_refuses_one_more_is_asked_again_after_a_pause(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.fail_before["create"] += [ProviderError("the quota is used up", "Ask for more.")] * 2
    service.restart(plant.context, plant.principal, launched.id)
    for _ in range(4):
        plant.step(launched.id)
    refused = plant.get(launched.id)
    assert refused.phase == "running"
    assert "the quota is used up" in refused.reason
    assert len(plant.provider.fail_before["create"]) == 1, "not every second"
    _settle(plant, launched.id, serving=1)


def test_a_restart_while_one_is_under_way_begins_anew(plant: Plant) -> None:
    launched = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(launched.id, "running")
    service.restart(plant.context, plant.principal, launched.id)
    for _ in range(8):
        plant.step(launched.id)
    assert service.restart(plant.context, plant.principal, launched.id).generation == 2
    _settle(plant, launched.id, serving=2)
    assert len(plant.provider.replicas) == 2


def test_a_restart_before_there_is_an_engine_changes_nothing(plant: Plant) -> None:
    launched = plant.launch()
    again = service.restart(plant.context, plant.principal, launched.id)
    assert (again.phase, again.generation) == ("requested", 0)
    plant.run_until(launched.id, "running")


def test_a_wish_during_a_step_is_acted_on_at_once(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.clock.advance(3600)
    find = plant.provider.find

    def find_and_be_overtaken(name: str):  # type: ignore[no-untyped-def]
        plant.provider.find = find  # type: ignore[method-assign]
        plant.clock.advance(0.1)
        service.restart(plant.context, plant.principal, launched.id)
        return find(name)

    plant.provider.find = find_and_be_overtaken  # type: ignore[method-assign]
    assert plant.reconcile(launched.id) == 0.0
    assert plant.get(launched.id).next_attempt_at == plant.clock.now()
