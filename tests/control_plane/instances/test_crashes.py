"""Engines that end, hang or never come up: seen, explained, started again, and given up when that is pointless."""

from __future__ import annotations

import pytest

from control_plane.instances import service
from control_plane.instances.engine_probe import Probe
from control_plane.instances.reconcilers.crashes import STABLE_S
from control_plane.instances.replicas import MAX_RESTARTS
from control_plane.instances.silence import HUNG_S
from control_plane.providers.base import ProviderError
from tests.support.instances import Plant


def test_a_crash_is_seen_explained_and_mended(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.exit(plant.name_of(launched.id), -9)

    crashed = plant.run_until(launched.id, "provisioning")
    assert crashed.reason == "engine exited with code -9; restart 1 in 1 s"
    assert "memory" in (crashed.next_step or "")
    assert crashed.replicas[0].last_exit_code == -9
    assert not crashed.replicas[0].ready
    assert crashed.direct_url is None
    assert crashed.next_attempt_at is not None
    assert (crashed.next_attempt_at - plant.clock.now()).total_seconds() == pytest.approx(1)

    assert plant.reconcile(launched.id) is None, "the pause is kept, whoever sends hints"
    plant.run_until(launched.id, "running")
    assert len(plant.provider.specs) == 2
    assert plant.timeline(launched.id)[-3:] == ["instance.provisioning", "instance.starting", "instance.running"]


def test_pauses_grow_and_then_the_instance_gives_up_with_the_last_words(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    pauses = []
    for _ in range(MAX_RESTARTS):
        plant.provider.exit(plant.name_of(launched.id), 1, "RuntimeError: shape mismatch\n[slipway] engine ended\n")
        plant.run_until(launched.id, "provisioning")
        before = plant.clock.now()
        plant.run_until(launched.id, "starting")
        pauses.append((plant.clock.now() - before).total_seconds())
        plant.run_until(launched.id, "running")
    assert pauses == sorted(pauses)
    assert [round(pause) for pause in pauses] == [1, 2, 4, 8, 16]

    plant.provider.exit(plant.name_of(launched.id), 1)
    failed = plant.run_until(launched.id, "failed")
    assert failed.reason.startswith("engine exited with code 1, for the 6th time in a row")
    assert failed.reason.endswith("RuntimeError: shape mismatch")
    while plant.step(launched.id):
        pass
    assert plant.provider.replicas == {}, "a failed instance holds nothing"
    cost = plant.get(launched.id).cost_so_far
    plant.clock.advance(3600)
    assert plant.get(launched.id).cost_so_far == cost, "and costs nothing"

    service.start(plant.context, plant.principal, launched.id)
    assert plant.run_until(launched.id, "running").replicas[0].restarts == 0


def test_crashes_far_apart_do_not_add_up(plant: Plant) -> None:
    launched = plant.launch()
    for _ in range(2 * MAX_RESTARTS):
        plant.run_until(launched.id, "running")
        plant.clock.advance(STABLE_S)
        plant.provider.exit(plant.name_of(launched.id), 1)
        assert "restart 1 in 1 s" in plant.run_until(launched.id, "provisioning").reason


def test_what_the_engine_refuses_is_not_tried_again(plant: Plant) -> None:
    plant.provider.engines_answer = Probe.SILENT
    launched = plant.launch()
    plant.run_until(launched.id, "starting")
    message = "slipway-serve: error: The context of 1000000 tokens does not fit; use --max-model-len 4096."
    plant.provider.exit(plant.name_of(launched.id), 2, f"loading\n{message}\n[slipway] engine ended: exit code 2\n")

    failed = plant.run_until(launched.id, "failed")

    assert failed.reason.endswith("The context of 1000000 tokens does not fit; use --max-model-len 4096.")
    assert "slipway-serve" not in failed.reason
    assert failed.replicas[0].last_exit_code == 2
    assert len(plant.provider.specs) == 1


def test_a_lost_host_is_no_crash(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.lose_everything()
    moved = plant.run_until(launched.id, "provisioning")
    assert moved.reason == "the engine on node-1 is gone: its provider lost it; starting another"
    assert "instance.replica_lost" in plant.timeline(launched.id)
    assert plant.run_until(launched.id, "running").replicas[0].restarts == 0


def test_a_host_that_does_not_answer_is_no_reason_to_touch_the_engine(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.unavailable("find", times=3)
    for _ in range(3):
        plant.step(launched.id)
        instance = plant.get(launched.id)
        assert (instance.phase, instance.reason) == ("running", "state unknown: the fake does not answer")
        assert instance.replicas[0].ready
    plant.step(launched.id)
    assert plant.get(launched.id).reason == "answering requests"


def test_an_engine_that_hangs_loses_its_requests_then_its_life(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.engines_answer = Probe.SILENT
    plant.step(launched.id)
    assert plant.get(launched.id).replicas[0].ready, "one missed answer is nothing"
    for _ in range(6):
        plant.step(launched.id)
    unwell = plant.get(launched.id)
    assert unwell.phase == "running"
    assert not unwell.replicas[0].ready
    assert "not answering for" in (unwell.replicas[0].condition or "")
    assert "not answering for" in unwell.reason

    plant.provider.engines_answer = Probe.READY
    plant.step(launched.id)
    assert plant.get(launched.id).replicas[0].ready, "it recovers by itself"

    plant.provider.engines_answer = Probe.SILENT
    assert "no answer for" in plant.run_until(launched.id, "provisioning", within_s=HUNG_S + 10).reason
    plant.provider.engines_answer = Probe.READY
    plant.run_until(launched.id, "running")
    assert plant.provider.deleted == [plant.name_of(launched.id)]


def test_loading_may_take_long_but_not_without_a_word(plant: Plant) -> None:
    plant.context.settings.start_timeout_s = limit = 30
    plant.provider.engines_answer = Probe.SILENT
    launched = plant.launch()
    plant.run_until(launched.id, "starting")
    name = plant.name_of(launched.id)
    for percent in range(0, 100, 25):
        plant.provider.log[name] += f"weights: {percent} %\n"
        plant.step(launched.id)
        assert f"weights: {percent} %" in plant.get(launched.id).reason
        for _ in range(4):
            plant.clock.advance(5)
            plant.step(launched.id)
    assert plant.get(launched.id).phase == "starting"

    moved = plant.run_until(launched.id, "provisioning", within_s=limit + 2)
    assert moved.reason == f"no sign of progress for {limit:g} s; restart 1 in 1 s"


def test_one_of_several_replicas_is_mended_while_the_others_serve(plant: Plant) -> None:
    launched = plant.launch(replicas={"min": 3, "max": 3})
    plant.run_until(launched.id, "running")
    plant.provider.exit(plant.name_of(launched.id, 1), -11)

    plant.step(launched.id)
    instance = plant.get(launched.id)
    assert instance.phase == "running"
    assert [replica.ready for replica in instance.replicas] == [True, False, True]
    assert instance.reason == "replica 1: engine exited with code -11; restart 1 in 1 s"
    for _ in range(3):
        plant.step(launched.id)
    assert [replica.ready for replica in plant.get(launched.id).replicas] == [True, True, True]
    assert plant.get(launched.id).reason == "answering requests"
    assert len(plant.provider.specs) == 4


def test_a_refusal_of_the_provider_is_final(plant: Plant) -> None:
    plant.provider.fail_before["create"].append(ProviderError("no quota for that", "Ask for more."))
    launched = plant.launch()
    failed = plant.run_until(launched.id, "failed")
    assert (failed.reason, failed.next_step) == ("no quota for that", "Ask for more.")


def test_a_provider_that_is_away_is_asked_again_less_and_less_often(plant: Plant) -> None:
    plant.provider.unavailable("find", times=8)
    launched = plant.launch()
    plant.run_until(launched.id, "provisioning")
    reasons = []
    while len(reasons) < 8:
        plant.step(launched.id)
        if "trying again" in (reason := plant.get(launched.id).reason):
            reasons.append(reason.rpartition("in ")[2])
    assert reasons == ["1 s", "2 s", "4 s", "8 s", "16 s", "30 s", "30 s", "30 s"]
    plant.run_until(launched.id, "running")
