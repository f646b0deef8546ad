"""What an administrator decides: an engine that no row knows is adopted and serves again, or it is deleted."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import delete
from sqlmodel import col

from control_plane.errors import Conflict, NotFound
from control_plane.ids import new_id
from control_plane.instances import service
from control_plane.instances.tables import Instance, Replica
from control_plane.reaper import adoption, decisions
from control_plane.reaper.check import CHECK
from control_plane.reaper.tables import OrphanState
from tests.control_plane.reaper.conftest import Reaper
from tests.support.instances import STARTER, Plant, add_principal


def restore_an_older_database(plant: Plant, instance_id: UUID) -> None:
    """One in which the instance is not yet."""
    with plant.context.database.transaction() as session:
        session.execute(delete(Replica).where(col(Replica.instance_id) == instance_id))
        session.execute(delete(Instance).where(col(Instance.id) == instance_id))


def test_an_adopted_engine_serves_as_before(plant: Plant, reaper: Reaper) -> None:
    before = plant.run_until(plant.launch(name="My model 1.5", replicas={"min": 2, "max": 2}).id, "running")
    boots = {replica.resource_name: replica.boot_token for replica in plant.replicas(before.id)}
    restore_an_older_database(plant, before.id)
    reaper.look()
    assert {orphan.state for orphan in reaper.open} == {OrphanState.UNKNOWN}
    first, second = reaper.open
    adoption.adopt(plant.context, plant.principal, first.id)
    adoption.adopt(plant.context, plant.principal, second.id)
    again = adoption.adopt(plant.context, plant.principal, first.id)
    assert again.id == before.id, "twice is once"
    for _ in range(3):
        plant.step(before.id)
    after = plant.get(before.id)
    assert [replica.ready for replica in after.replicas] == [True, True]
    kept = ("id", "slug", "model", "hardware", "price_per_hour", "phase", "direct_url", "replica_count")
    assert {name: getattr(after, name) for name in kept} == {name: getattr(before, name) for name in kept}
    assert {replica.resource_name: replica.boot_token for replica in plant.replicas(before.id)} == boots
    assert (len(plant.provider.specs), plant.provider.deleted) == (2, []), "nothing was started or ended"
    reaper.look()
    assert (reaper.row.matched, reaper.open) == (2, [])
    assert "instance.adopted" in plant.timeline(before.id)


def test_an_adopted_instance_can_be_ended_and_started_again(plant: Plant, reaper: Reaper) -> None:
    before = plant.run_until(plant.launch().id, "running")
    restore_an_older_database(plant, before.id)
    reaper.look()
    adoption.adopt(plant.context, plant.principal, reaper.open[0].id)
    service.stop(plant.context, plant.principal, before.id)
    plant.run_until(before.id, "stopped")
    service.start(plant.context, plant.principal, before.id)
    plant.run_until(before.id, "running")
    service.terminate(plant.context, plant.principal, before.id)
    plant.run_until(before.id, "terminated")
    assert plant.provider.replicas == {}


def test_adoption_takes_another_name_where_its_own_is_taken(plant: Plant, reaper: Reaper) -> None:
    before = plant.run_until(plant.launch(name="chat").id, "running")
    restore_an_older_database(plant, before.id)
    other = plant.launch(name="chat")
    plant.change(other.id, lambda row: setattr(row, "slug", before.slug))
    reaper.look()
    adopted = adoption.adopt(plant.context, plant.principal, reaper.open[0].id)
    assert adopted.name == "chat-2"
    assert adopted.slug != before.slug


def test_what_cannot_be_adopted_says_why(plant: Plant, reaper: Reaper) -> None:
    agent = reaper.stray(f"slipway-fetch-{new_id().hex}", model="org--model")
    silent = reaper.stray()
    gone = reaper.stray(model="slipway--starter")
    reaper.look()
    by_name = {orphan.name: orphan.id for orphan in reaper.open}
    del plant.provider.replicas[gone]
    for name, words in ((agent, "is no engine"), (silent, "do not say which model"), (gone, "does not run")):
        with pytest.raises(Conflict, match=words):
            adoption.adopt(plant.context, plant.principal, by_name[name])
    with pytest.raises(NotFound):
        adoption.adopt(plant.context, plant.principal, new_id())


def test_a_decision_to_delete_is_carried_out_at_once(plant: Plant, reaper: Reaper) -> None:
    name = reaper.stray(model="slipway--starter")
    reaper.look()
    orphan_id = reaper.open[0].id
    admin = add_principal(plant.context, "grace")
    plant.hints.clear()
    for _ in range(2):
        assert decisions.delete(plant.context, admin, orphan_id).state == OrphanState.DELETING
    assert plant.hints == [(CHECK, reaper.row.id)]
    reaper.look(after_s=0)
    assert name not in plant.provider.replicas
    assert reaper.open[0].decided_by == admin.actor
    with pytest.raises(Conflict, match="deleting"):
        adoption.adopt(plant.context, admin, orphan_id)
    reaper.look()
    reaper.look()
    assert reaper.open == []
    assert decisions.delete(plant.context, admin, orphan_id).state == OrphanState.GONE


def test_what_was_adopted_is_not_deleted_as_an_orphan(plant: Plant, reaper: Reaper) -> None:
    instance = plant.run_until(plant.launch().id, "running")
    restore_an_older_database(plant, instance.id)
    reaper.look()
    orphan_id = reaper.open[0].id
    assert adoption.adopt(plant.context, plant.principal, orphan_id).model == STARTER
    with pytest.raises(Conflict, match="adopted"):
        decisions.delete(plant.context, plant.principal, orphan_id)
