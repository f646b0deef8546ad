"""Clocks that jump and control planes that pause: no engine dies of it, and nothing waits for an hour."""

from __future__ import annotations

import threading

import pytest

from control_plane import leases
from control_plane.instances import reconcile as reconciler
from control_plane.instances.engine_probe import Probe
from control_plane.instances.reconcile import LEASE, sweep
from control_plane.instances.reconcilers.running import LOOK_EVERY_S, STEADY_S
from control_plane.instances.silence import HUNG_S, MAX_GAP_S, UNREACHABLE_S
from control_plane.leases import CLOCK_SKEW
from control_plane.providers.base import ProviderUnavailable
from tests.control_plane.instances.test_interruptions import Killed
from tests.support.instances import Plant

HOUR_S = 3600.0


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_jumps_kills_no_silent_engine(plant: Plant, jump_s: float) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.engines_answer = Probe.SILENT
    plant.step(launched.id)
    plant.clock.advance(jump_s)
    plant.reconcile(launched.id)
    instance = plant.get(launched.id)
    assert instance.phase == "running"
    assert plant.replicas(launched.id)[0].silent_s <= 2 * MAX_GAP_S
    plant.provider.engines_answer = Probe.READY
    plant.step(launched.id)
    assert plant.get(launched.id).reason == "answering requests"
    assert plant.replicas(launched.id)[0].silent_s == 0


def test_a_pause_of_ours_is_not_the_engines_silence(plant: Plant) -> None:
    plant.provider.engines_answer = Probe.SILENT
    launched = plant.launch()
    plant.run_until(launched.id, "starting")
    for _ in range(5):
        plant.clock.advance(10 * plant.context.settings.start_timeout_s)
        plant.reconcile(launched.id)
    assert plant.get(launched.id).phase == "starting"


def test_silence_that_was_watched_counts(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.engines_answer = Probe.SILENT
    began = plant.clock.now()
    while plant.get(launched.id).replicas[0].ready:
        plant.step(launched.id)
    assert UNREACHABLE_S - MAX_GAP_S <= (plant.clock.now() - began).total_seconds() <= UNREACHABLE_S + MAX_GAP_S
    plant.run_until(launched.id, "provisioning", within_s=HUNG_S + MAX_GAP_S)


def test_what_was_due_before_the_clock_was_set_back_is_due_now(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.clock.advance(-HOUR_S)
    assert sweep(plant.context) == [launched.id]
    assert plant.reconcile(launched.id) is not None
    due = plant.get(launched.id).next_attempt_at
    assert due is not None
    assert 0 < (due - plant.clock.now()).total_seconds() <= STEADY_S
    assert sweep(plant.context) == []


def test_a_lease_made_before_the_clock_was_set_back_runs_out(plant: Plant) -> None:
    plant.provider.fail_after["create"].append(Killed())
    launched = plant.launch()
    with pytest.raises(Killed):
        plant.run_until(launched.id, "running")
    plant.clock.advance(LEASE.total_seconds() - CLOCK_SKEW.total_seconds())
    assert plant.reconcile(launched.id) is None, "the machines' clocks may differ a little"
    plant.clock.advance(-HOUR_S)
    assert plant.reconcile(launched.id) is not None
    plant.run_until(launched.id, "running")
    assert len(plant.provider.specs) == 1


def test_a_pause_made_before_the_clock_was_set_back_is_over(plant: Plant) -> None:
    launched = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(launched.id, "running")
    plant.provider.exit(plant.name_of(launched.id), 1)
    plant.step(launched.id)
    plant.clock.advance(-HOUR_S)
    plant.reconcile(launched.id)
    assert plant.replicas(launched.id)[0].started_at == plant.clock.now()


def test_costs_never_fall(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.clock.advance(HOUR_S)
    plant.provider.exit(plant.name_of(launched.id), 1)
    plant.run_until(launched.id, "provisioning")
    paid = plant.get(launched.id).cost_so_far
    assert paid == pytest.approx(3.6, rel=0.01)
    plant.run_until(launched.id, "running")
    plant.clock.advance(-HOUR_S)
    assert plant.get(launched.id).cost_so_far >= paid
    plant.provider.exit(plant.name_of(launched.id), 1)
    plant.reconcile(launched.id)
    assert plant.get(launched.id).cost_so_far >= paid


def test_what_runs_well_is_looked_at_less_and_less_and_what_does_not_at_once(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    pauses = []
    for _ in range(80):
        before = plant.clock.now()
        plant.step(launched.id)
        pauses.append((plant.clock.now() - before).total_seconds())
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (LOOK_EVERY_S, STEADY_S)
    plant.provider.engines_answer = Probe.SILENT
    plant.step(launched.id)
    due = plant.get(launched.id).next_attempt_at
    assert due is not None
    assert (due - plant.clock.now()).total_seconds() == LOOK_EVERY_S


def test_a_step_that_takes_long_keeps_its_claim(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider answers when the claim has been extended: while it thinks, nobody else can take the instance."""
    monkeypatch.setattr(reconciler, "LEASE", LEASE / 200)
    extend, extended = leases.extend, threading.Event()

    def extend_and_tell(*args: object, **kwargs: object) -> bool:
        held = extend(*args, **kwargs)  # type: ignore[arg-type]
        extended.set()
        return held

    monkeypatch.setattr(leases, "extend", extend_and_tell)
    launched = plant.launch()
    plant.run_until(launched.id, "provisioning")
    plant.step(launched.id)
    create = plant.provider.create

    def create_slowly(spec):  # type: ignore[no-untyped-def]
        plant.clock.advance(10 * LEASE.total_seconds())
        extended.clear()
        assert extended.wait(20)
        assert plant.reconcile(launched.id) is None, "it is still claimed"
        return create(spec)

    plant.provider.create = create_slowly  # type: ignore[method-assign]
    plant.step(launched.id)
    assert plant.get(launched.id).phase == "starting"


def test_a_phase_of_a_newer_version_is_left_alone(plant: Plant) -> None:
    launched = plant.launch()
    plant.change(launched.id, lambda row: setattr(row, "phase", "hibernating"))
    plant.step(launched.id)
    row = plant.row(launched.id)
    assert (row.phase, row.reason) == ("hibernating", "waiting for a worker")
    assert row.next_attempt_at is not None
    assert plant.get(launched.id).phase == "hibernating"


def test_an_outage_of_the_provider_adds_no_silence(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.fail_before["find"] += [ProviderUnavailable("away", "Wait.")] * 100
    for _ in range(100):
        plant.step(launched.id)
    assert plant.get(launched.id).phase == "running"
    assert plant.replicas(launched.id)[0].silent_s == 0
