"""The provider's list against the rows: what is wanted stays, what is over goes, what nobody knows waits."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.instances import brake, service
from control_plane.instances.change import RECONCILE
from control_plane.instances.schemas import InstanceUpdate, ReplicaCount
from control_plane.providers.base import ProviderUnavailable, ReplicaStatus
from control_plane.reaper import check, decisions, repository
from control_plane.reaper.tables import OrphanState
from tests.control_plane.reaper.conftest import Reaper
from tests.support.instances import Plant


def test_what_rows_want_is_matched(plant: Plant, reaper: Reaper) -> None:
    plant.run_until(plant.launch(replicas={"min": 2, "max": 2}).id, "running")
    for _ in range(3):
        reaper.look()
    assert (reaper.row.owned, reaper.row.matched, reaper.row.unmatched) == (2, 2, 0)
    assert reaper.row.last_listed_at == plant.clock.now()
    assert not plant.provider.deleted


def test_a_create_that_lands_late_is_deleted(plant: Plant, reaper: Reaper) -> None:
    instance = plant.launch()
    plant.run_until(instance.id, "running")
    spec = plant.provider.specs[0]
    service.terminate(plant.context, plant.principal, instance.id)
    plant.run_until(instance.id, "terminated")
    plant.provider.create(replace(spec, boot_token="of a request that was under way"))
    reaper.look()
    assert [orphan.state for orphan in reaper.open] == [OrphanState.LEFTOVER]
    assert "terminated" in reaper.open[0].reason
    assert spec.name in plant.provider.replicas, "one listing is not enough"
    reaper.look_until_gone(spec.name)
    assert plant.timeline(instance.id)[-1] == "provider.orphan_deleted"
    assert reaper.row.unmatched == 0


def test_an_earlier_boot_that_came_back_is_ended(plant: Plant, reaper: Reaper) -> None:
    """A node that was lost returns with its engine, while its instance waits to be started again elsewhere."""
    instance = plant.launch()
    plant.run_until(instance.id, "running")
    spec = plant.provider.specs[0]
    service.stop(plant.context, plant.principal, instance.id)
    plant.run_until(instance.id, "stopped")
    plant.provider.create(spec)
    assert plant.replicas(instance.id)[0].boot_token != spec.boot_token
    reaper.look_until_gone(spec.name)
    plant.run_until(service.start(plant.context, plant.principal, instance.id).id, "running")
    reaper.look()
    assert reaper.row.matched == 1


def test_a_boot_that_is_being_started_is_left_to_its_reconciler(plant: Plant, reaper: Reaper) -> None:
    """The row names the next boot, the provider still has the last one: ending that is a part of starting."""
    instance = plant.launch()
    plant.run_until(instance.id, "running")
    service.restart(plant.context, plant.principal, instance.id)
    plant.provider.deletes_take_effect = False
    for _ in range(3):
        reaper.look()
    assert reaper.open == []


def test_what_no_row_knows_waits_for_a_person(plant: Plant, reaper: Reaper) -> None:
    name = reaper.stray(model="slipway--starter")
    for _ in range(10):
        reaper.look()
    assert name in plant.provider.replicas
    (orphan,) = reaper.open
    assert (orphan.state, orphan.labels["model"], reaper.row.unmatched) == (OrphanState.UNKNOWN, "slipway--starter", 1)
    del plant.provider.replicas[name]
    reaper.look()
    assert len(reaper.open) == 1, "a listing can lag"
    reaper.look()
    assert reaper.open == []


def test_a_replica_that_a_newer_database_knew_waits_for_a_person_too(plant: Plant, reaper: Reaper) -> None:
    instance = plant.launch()
    plant.run_until(instance.id, "running")
    newer = reaper.stray(f"slipway-{instance.id.hex}-1", generation="3")
    plant.change(instance.id, lambda row: setattr(row, "generation", 2))
    older = reaper.stray(f"slipway-{instance.id.hex}-2", generation="1")
    for _ in range(4):
        reaper.look()
    assert newer in plant.provider.replicas
    assert older not in plant.provider.replicas
    assert plant.name_of(instance.id) in plant.provider.replicas


def test_a_replica_that_was_let_go_does_not_come_back(plant: Plant, reaper: Reaper) -> None:
    """Its create was under way when the instance was made smaller, and lands when its row is gone."""
    instance = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(instance.id, "running")
    service.update(plant.context, plant.principal, instance.id, InstanceUpdate(replicas=ReplicaCount(min=1, max=1)))
    for _ in range(20):
        plant.step(instance.id)
    (kept,) = plant.replicas(instance.id)
    spec = next(spec for spec in plant.provider.specs if spec.name != kept.resource_name)
    plant.provider.create(spec)
    reaper.look_until_gone(spec.name)
    assert list(plant.provider.replicas) == [kept.resource_name]


def test_a_deletion_is_retried_for_ever_and_reported(
    plant: Plant, reaper: Reaper, caplog: pytest.LogCaptureFixture
) -> None:
    instance = plant.launch()
    plant.run_until(instance.id, "running")
    spec = plant.provider.specs[0]
    service.terminate(plant.context, plant.principal, instance.id)
    plant.run_until(instance.id, "terminated")
    plant.provider.create(spec)
    plant.provider.unavailable("delete", times=20)
    for _ in range(20):
        reaper.look()
    (orphan,) = reaper.open
    assert (orphan.state, orphan.trouble) == (OrphanState.DELETING, "the fake does not answer Wait.")
    assert any(record.levelname == "ERROR" and spec.name in record.message for record in caplog.records)
    reaper.look_until_gone(spec.name)


def test_a_newer_boot_of_the_same_name_is_never_deleted(plant: Plant, reaper: Reaper) -> None:
    """Between the listing and the deletion the name has been given to another boot."""
    instance = plant.launch()
    plant.run_until(instance.id, "running")
    spec = plant.provider.specs[0]
    service.stop(plant.context, plant.principal, instance.id)
    plant.run_until(instance.id, "stopped")
    plant.provider.create(spec)
    reaper.look()
    listed = list(plant.provider.replicas.values())
    plant.provider.replicas[spec.name] = replace(listed[0], boot_token="newer")
    before = len(plant.provider.deleted)
    plant.provider.list_owned = lambda: listed  # type: ignore[method-assign]
    reaper.look()
    assert len(plant.provider.deleted) == before
    assert "another boot" in str(reaper.open[0].trouble)


def test_a_boot_that_begins_between_the_look_and_the_order_is_not_deleted(plant: Plant, reaper: Reaper) -> None:
    instance = plant.launch()
    plant.run_until(instance.id, "running")
    spec = plant.provider.specs[0]
    service.stop(plant.context, plant.principal, instance.id)
    plant.run_until(instance.id, "stopped")
    plant.provider.create(spec)
    reaper.look()
    find = plant.provider.find

    def find_and_be_overtaken(name: str) -> ReplicaStatus:
        found = find(name)
        plant.provider.replicas[name] = replace(found, boot_token="newer")
        return found

    plant.provider.find = find_and_be_overtaken  # type: ignore[method-assign]
    reaper.look()
    assert plant.provider.replicas[spec.name].boot_token == "newer"


def test_what_should_be_there_and_is_not_is_looked_at_now(plant: Plant, reaper: Reaper) -> None:
    instance = plant.launch()
    plant.run_until(instance.id, "running")
    plant.change(instance.id, lambda row: setattr(row, "next_attempt_at", plant.clock.now() + timedelta(hours=1)))
    plant.provider.lose_everything()
    plant.hints.clear()
    reaper.look()
    assert (RECONCILE, instance.id) in plant.hints
    assert plant.row(instance.id).next_attempt_at == plant.clock.now()


def test_a_provider_that_cannot_be_asked_is_said_so_since_when(plant: Plant, reaper: Reaper) -> None:
    reaper.look()
    listed_at = reaper.row.last_listed_at
    since = plant.clock.now() + timedelta(seconds=30)
    working, plant.provider.list_owned = plant.provider.list_owned, _fail  # type: ignore[method-assign]
    for _ in range(3):
        reaper.look()
    assert (reaper.row.last_error, reaper.row.error_since) == ("no route to it See the cable.", since)
    assert reaper.row.last_listed_at == listed_at
    plant.provider.list_owned = working  # type: ignore[method-assign]
    reaper.look()
    assert (reaper.row.last_error, reaper.row.error_since) == (None, None)


def _fail() -> list[object]:
    raise ProviderUnavailable("no route to it", "See the cable.")


def test_two_schedulers_check_once(plant: Plant, reaper: Reaper) -> None:
    reaper.look()
    plant.clock.advance(30)
    due = check.sweep(plant.context) + check.sweep(plant.context)
    assert len(due) == 2
    assert [check.check(plant.context, check_id) for check_id in due] == [True, False]


def test_a_killed_worker_holds_up_one_lease(plant: Plant, reaper: Reaper) -> None:
    class Killed(BaseException):
        pass

    reaper.look()

    def die() -> list[object]:
        raise Killed

    working, plant.provider.list_owned = plant.provider.list_owned, die  # type: ignore[assignment, method-assign]
    with pytest.raises(Killed):
        reaper.look()
    plant.provider.list_owned = working  # type: ignore[method-assign]
    reaper.look()
    reaper.look(after_s=61)
    assert reaper.row.last_listed_at == plant.clock.now()


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_stops_no_check(plant: Plant, reaper: Reaper, hours: int) -> None:
    reaper.look()
    reaper.look(after_s=hours * 3600)
    reaper.look()
    assert reaper.row.last_listed_at == plant.clock.now()


def test_a_provider_gets_its_row_once(plant: Plant, reaper: Reaper) -> None:
    for _ in range(2):
        check.sweep(plant.context)
    with plant.context.database.reading() as session:
        assert [row.provider for row in repository.checks(session)] == ["fake"]


def test_nothing_is_deleted_while_too_much_looks_gone(plant: Plant, reaper: Reaper) -> None:
    """A provider that lists almost nothing is doubted, and so is what it does list."""
    over = plant.launch(name="over")
    plant.run_until(over.id, "running")
    spec = plant.provider.specs[0]
    service.terminate(plant.context, plant.principal, over.id)
    plant.run_until(over.id, "terminated")
    for number in range(4):
        plant.run_until(plant.launch(name=f"serving-{number}").id, "running")
    plant.provider.replicas.clear()
    plant.provider.create(spec)
    stray = reaper.stray()
    for _ in range(5):
        reaper.look()
    assert set(plant.provider.replicas) == {spec.name, stray}
    assert reaper.row.brake_since is not None
    assert "4 of 4 replicas of fake look gone" in str(reaper.row.brake_reason)
    by_name = {orphan.name: orphan.id for orphan in reaper.open}
    decisions.delete(plant.context, plant.principal, by_name[stray])
    reaper.look()
    assert set(plant.provider.replicas) == {spec.name}, "an administrator may"
    admin = replace(plant.principal, is_admin=True)
    brake.confirm_loss(plant.context, admin, "fake")
    reaper.look()
    assert plant.provider.replicas == {}
    assert (reaper.row.brake_since, reaper.row.brake_reason) == (None, None)
