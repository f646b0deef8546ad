"""Workers that die, meet or come too late: in the end there is one engine per replica, or none."""

from __future__ import annotations

from datetime import timedelta

import pytest

from control_plane.instances import service
from control_plane.instances.reconcile import LEASE, reconcile
from control_plane.providers.base import ProviderUnavailable
from tests.support.instances import Plant


class Killed(BaseException):
    """The worker's process ends here: nothing of it runs any more."""


def test_a_lost_reply_does_not_make_a_second_engine(plant: Plant) -> None:
    plant.provider.fail_after["create"].append(ProviderUnavailable("the reply was lost", "Wait."))
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    assert len(plant.provider.specs) == 1
    assert list(plant.provider.replicas) == [plant.name_of(launched.id)]


def test_a_worker_killed_after_create_is_followed_by_one_that_finds_the_engine(plant: Plant) -> None:
    plant.provider.fail_after["create"].append(Killed())
    launched = plant.launch()
    with pytest.raises(Killed):
        plant.run_until(launched.id, "running")

    assert plant.reconcile(launched.id) is None, "the dead worker's lease still holds"
    plant.clock.advance(LEASE.total_seconds() + 1)
    plant.run_until(launched.id, "running")
    assert len(plant.provider.specs) == 1


def test_the_user_moves_the_instance_while_a_worker_is_at_it(plant: Plant) -> None:
    """What the worker did for the old phase is dropped, and what it started is released."""
    launched = plant.launch()
    plant.run_until(launched.id, "provisioning")
    plant.step(launched.id)  # the rows
    create = plant.provider.create

    def create_and_be_overtaken(spec):  # type: ignore[no-untyped-def]
        service.terminate(plant.context, plant.principal, launched.id)
        return create(spec)

    plant.provider.create = create_and_be_overtaken  # type: ignore[method-assign]
    assert plant.reconcile(launched.id) == 0.0
    assert len(plant.provider.replicas) == 1
    assert plant.get(launched.id).phase == "terminating"
    plant.run_until(launched.id, "terminated")
    assert plant.provider.replicas == {}


def test_two_workers_at_once(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "starting")
    second_hint: list[float | None] = []

    def probe(url: str, boot_token: str):  # type: ignore[no-untyped-def]
        second_hint.append(reconcile(plant.context, launched.id, probe=plant.provider.probe))
        return plant.provider.probe(url, boot_token)

    plant.clock.advance(1)
    reconcile(plant.context, launched.id, probe=probe)
    assert second_hint == [None]
    assert plant.timeline(launched.id).count("instance.running") == 1


def test_a_worker_that_comes_back_too_late_changes_nothing(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "starting")

    def slow_probe(url: str, boot_token: str):  # type: ignore[no-untyped-def]
        plant.clock.advance((LEASE + timedelta(seconds=1)).total_seconds())
        assert reconcile(plant.context, launched.id, probe=plant.provider.probe) is not None
        return plant.provider.probe(url, boot_token)

    plant.clock.advance(1)
    assert reconcile(plant.context, launched.id, probe=slow_probe) is None
    assert plant.get(launched.id).phase == "running"
    assert plant.timeline(launched.id).count("instance.running") == 1


def test_a_bug_in_a_step_is_told_and_tried_again(plant: Plant) -> None:
    plant.provider.fail_before["find"].append(ZeroDivisionError())
    launched = plant.launch()
    plant.run_until(launched.id, "provisioning")
    plant.step(launched.id)
    plant.step(launched.id)
    instance = plant.get(launched.id)
    assert instance.reason == "internal error (ZeroDivisionError); trying again in 1 s"
    plant.run_until(launched.id, "running")
