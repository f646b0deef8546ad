"""Queues, preemption, dead nodes, strangers, lists that lie: explained, replaced, and nothing ended by mistake."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlmodel import select

from control_plane.audit.tables import AuditEvent
from control_plane.errors import Forbidden, NotFound
from control_plane.instances import brake, repository, service
from control_plane.instances.engine_probe import Probe
from control_plane.instances.reconcilers.crashes import LOST_EARLY_PAUSE_S
from control_plane.instances.schemas import InstanceView
from control_plane.instances.silence import HUNG_S
from control_plane.providers.base import ReplicaState, ReplicaStatus
from tests.support.instances import Plant

#: What is tried here is decided outside the database; the other files of this folder try both kinds.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def _steps(plant: Plant, instance: InstanceView, count: int) -> InstanceView:
    for _ in range(count):
        plant.step(instance.id)
    return plant.get(instance.id)


def test_a_queue_is_explained_costs_nothing_and_has_no_deadline(plant: Plant) -> None:
    plant.provider.full = "Resources"
    launched = plant.launch()
    plant.run_until(launched.id, "provisioning")
    waiting = _steps(plant, launched, 5)
    assert (waiting.phase, waiting.reason) == ("provisioning", "waiting: Resources")
    for _ in range(10):
        plant.clock.advance(6000)
        plant.step(launched.id)
    waiting = plant.get(launched.id)
    assert (waiting.phase, waiting.cost_so_far) == ("provisioning", 0.0)
    assert waiting.next_attempt_at is not None
    assert len(plant.provider.specs) == 1

    plant.provider.run(plant.name_of(launched.id), node="node-2")
    running = plant.run_until(launched.id, "running")
    assert running.replicas[0].node == "node-2"
    assert running.replicas[0].condition is None
    plant.clock.advance(3600)
    assert plant.get(launched.id).cost_so_far == pytest.approx(3.6, rel=0.01)


def test_those_that_have_a_place_serve_while_others_queue(plant: Plant) -> None:
    create = plant.provider.create

    def create_with_room_for_one(spec):  # type: ignore[no-untyped-def]
        plant.provider.full = "Priority" if plant.provider.replicas else None
        return create(spec)

    plant.provider.create = create_with_room_for_one  # type: ignore[method-assign]
    launched = plant.launch(replicas={"min": 2, "max": 2})
    running = plant.run_until(launched.id, "running")
    assert [replica.ready for replica in running.replicas] == [True, False]
    assert running.reason == "replica 1: Priority"
    plant.clock.advance(3600)
    assert plant.get(launched.id).cost_so_far == pytest.approx(3.6, rel=0.01), "one is paid, one waits"
    plant.provider.run(plant.name_of(launched.id, 1))
    joined = _steps(plant, launched, 5)
    assert [replica.ready for replica in joined.replicas] == [True, True]


def test_what_is_taken_away_is_explained_and_replaced_at_once_and_is_no_crash(plant: Plant) -> None:
    launched = plant.launch(replicas={"min": 2, "max": 2})
    plant.run_until(launched.id, "running")
    name, boot = plant.name_of(launched.id), plant.replicas(launched.id)[0].boot_token
    plant.provider.take_away(name, "preempted by job 17")

    told = _steps(plant, launched, 1)
    assert told.reason == "replica 0: the engine on node-1 was taken away: preempted by job 17; starting another"
    assert [replica.ready for replica in told.replicas] == [False, True]
    mended = _steps(plant, launched, 3)
    assert [replica.ready for replica in mended.replicas] == [True, True]
    assert mended.replicas[0].restarts == 0
    assert plant.replicas(launched.id)[0].boot_token != boot
    assert plant.provider.deleted == [name], "what is left of the old boot is ended before the new one is made"
    event = service.events(plant.context, plant.principal, launched.id).items[-1]
    assert event.action == "instance.replica_lost"
    assert "preempted by job 17" in event.message
    assert event.data["node"] == "node-1"


def test_a_replica_that_is_always_taken_away_while_it_loads_is_no_storm(plant: Plant) -> None:
    plant.provider.engines_answer = Probe.SILENT
    launched = plant.launch()
    plant.run_until(launched.id, "starting")
    for _ in range(4):
        plant.provider.take_away(plant.name_of(launched.id), "node drained")
        plant.run_until(launched.id, "provisioning")
        before = plant.clock.now()
        plant.run_until(launched.id, "starting")
        assert (plant.clock.now() - before).total_seconds() >= LOST_EARLY_PAUSE_S
    assert plant.get(launched.id).replicas[0].restarts == 0


def test_a_requeued_run_is_the_same_boot_at_another_address(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    name, boot = plant.name_of(launched.id), plant.replicas(launched.id)[0].boot_token
    plant.provider.queue(name, "BeginTime")
    waiting = plant.run_until(launched.id, "provisioning")
    assert "waiting for hardware again" in waiting.reason
    assert waiting.replicas[0].url is None
    cost = plant.get(launched.id).cost_so_far
    plant.clock.advance(3600)
    plant.step(launched.id)
    assert plant.get(launched.id).cost_so_far == cost
    plant.provider.run(name, node="node-2")
    plant.run_until(launched.id, "running")
    (replica,) = plant.replicas(launched.id)
    assert (replica.boot_token, replica.node) == (boot, "node-2")
    assert len(plant.provider.specs) == 1


def test_one_absence_is_no_loss(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    name = plant.name_of(launched.id)
    engine = plant.provider.replicas.pop(name)
    unsure = _steps(plant, launched, 1)
    assert unsure.phase == "running"
    assert "asking again" in unsure.reason
    plant.provider.replicas[name] = engine
    assert _steps(plant, launched, 1).reason == "answering requests"
    assert len(plant.provider.specs) == 1

    plant.provider.exact = True
    plant.provider.replicas.pop(name)
    assert _steps(plant, launched, 1).phase == "provisioning", "where nothing lags, once is enough"


def test_an_engine_that_answers_is_there_whatever_its_provider_lists(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.find = lambda name: ReplicaStatus(name, ReplicaState.ABSENT)  # type: ignore[method-assign]
    serving = _steps(plant, launched, 5)
    assert serving.replicas[0].ready
    assert serving.reason == "its provider does not list it, yet it answers"


def test_a_stranger_at_its_address_gets_no_requests(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    plant.provider.engines_answer = Probe.STRANGER
    seen = _steps(plant, launched, 1)
    assert (seen.phase, seen.replicas[0].ready) == ("running", False)
    assert "somebody else answers" in seen.reason
    assert "no answer for" in plant.run_until(launched.id, "provisioning", within_s=HUNG_S + 20).reason


def test_a_boot_that_comes_back_is_ended(plant: Plant) -> None:
    launched = plant.launch()
    plant.run_until(launched.id, "running")
    name = plant.name_of(launched.id)
    before = plant.provider.replicas[name]
    plant.provider.take_away(name, "node-1 failed")
    plant.run_until(launched.id, "provisioning")
    plant.provider.replicas[name] = before  # the node returns, and the engine with it
    plant.run_until(launched.id, "running")
    assert plant.provider.replicas[name].boot_token != before.boot_token
    assert plant.provider.deleted == [name]


# The brake.


@pytest.fixture
def five(plant: Plant) -> list[InstanceView]:
    """Five instances that have run for a minute."""
    launched = [plant.launch() for _ in range(5)]
    for instance in launched:
        plant.run_until(instance.id, "running")
    plant.clock.advance(60)
    return launched


def _brakes(plant: Plant) -> list[str]:
    with plant.context.database.reading() as session:
        query = select(AuditEvent).where(AuditEvent.object_type == "provider").order_by(AuditEvent.id)
        return [event.action for event in session.exec(query)]


def _vanish(plant: Plant, instances: list[InstanceView]) -> Callable[[], None]:
    names = [plant.name_of(instance.id) for instance in instances]
    engines = {name: plant.provider.replicas.pop(name) for name in names}
    return lambda: plant.provider.replicas.update(engines)


def test_too_much_gone_at_once_is_not_believed(plant: Plant, five: list[InstanceView]) -> None:
    come_back = _vanish(plant, five[:3])
    for _ in range(3):
        for instance in five:
            plant.step(instance.id)
    held = plant.get(five[0].id)
    assert held.phase == "running"
    assert held.reason == "3 of 5 replicas of fake look gone at once: waiting until they are seen again"
    assert "administrator" in (held.next_step or "")
    assert len(plant.provider.specs) == 5
    assert plant.provider.deleted == []
    assert plant.get(five[4].id).reason == "answering requests"
    assert _brakes(plant) == ["provider.brake"], "told once"
    assert brake.judge(plant.context, plant.provider).on

    come_back()
    for instance in five:
        plant.step(instance.id)
        assert plant.get(instance.id).reason == "answering requests"
    assert not brake.judge(plant.context, plant.provider).on
    assert _brakes(plant) == ["provider.brake", "provider.brake_released"]
    assert len(plant.provider.specs) == 5


def test_the_first_one_looked_at_already_asks_for_the_others(plant: Plant, five: list[InstanceView]) -> None:
    _vanish(plant, five)
    for _ in range(4):
        plant.step(five[0].id)  # nobody has looked at the four others since
    assert plant.get(five[0].id).phase == "running"
    assert len(plant.provider.specs) == 5


def test_silence_of_many_is_not_believed_either(plant: Plant, five: list[InstanceView]) -> None:
    plant.provider.engines_answer = Probe.SILENT
    for silent_s in (0.0, HUNG_S - 1):
        for instance in five:
            _was_silent(plant, instance, silent_s)
        for instance in five:
            plant.step(instance.id)
    assert {plant.get(instance.id).phase for instance in five} == {"running"}
    assert plant.provider.deleted == []
    plant.provider.engines_answer = Probe.READY
    for instance in five:
        plant.step(instance.id)
        assert plant.get(instance.id).replicas[0].ready


def _was_silent(plant: Plant, instance: InstanceView, silent_s: float) -> None:
    with plant.context.database.transaction() as session:
        repository.update_replica(session, plant.replicas(instance.id)[0].id, {"silent_s": silent_s})


@pytest.mark.parametrize("gone", [1, 2])
def test_one_or_two_are_everyday_accidents(plant: Plant, five: list[InstanceView], gone: int) -> None:
    _vanish(plant, five[:gone])
    for instance in five[:gone]:
        plant.run_until(instance.id, "provisioning", within_s=30)
        plant.run_until(instance.id, "running")
    assert _brakes(plant) == []


def test_what_a_provider_knows_is_believed(plant: Plant, five: list[InstanceView]) -> None:
    for instance in five[:2]:
        plant.provider.take_away(plant.name_of(instance.id), "the zone is down")
    for instance in five[2:]:
        plant.provider.exit(plant.name_of(instance.id), 1)
    for instance in five:
        plant.run_until(instance.id, "provisioning", within_s=30)
        plant.run_until(instance.id, "running")
    assert _brakes(plant) == []


def test_an_administrator_confirms_a_loss(plant: Plant, five: list[InstanceView]) -> None:
    _vanish(plant, five)
    for _ in range(3):
        for instance in five:
            plant.step(instance.id)
    plain = plant.principal.__class__(**{**vars(plant.principal), "is_admin": False})
    with pytest.raises(Forbidden):
        brake.confirm_loss(plant.context, plain, "fake")
    with pytest.raises(NotFound):
        brake.confirm_loss(plant.context, plant.principal, "elsewhere")
    brake.confirm_loss(plant.context, plant.principal, "fake")
    for instance in five:
        due = plant.get(instance.id).next_attempt_at
        assert due is not None
        assert due <= plant.clock.now(), "it is acted on at once"
        plant.run_until(instance.id, "provisioning", within_s=10)
    for instance in five:
        plant.run_until(instance.id, "running")
    assert _brakes(plant)[:2] == ["provider.brake", "provider.loss_confirmed"]
    assert len(plant.provider.specs) == 10


def test_absence_in_doubt_confirms_no_release(plant: Plant, five: list[InstanceView]) -> None:
    come_back = _vanish(plant, five)
    for _ in range(3):
        for instance in five[1:]:
            plant.step(instance.id)
    service.terminate(plant.context, plant.principal, five[0].id)
    ending = _steps(plant, five[0], 6)
    assert ending.phase == "terminating"
    assert "4 of 4 replicas of fake look gone at once" in ending.reason

    come_back()
    for instance in five[1:]:
        plant.step(instance.id)
    plant.run_until(five[0].id, "terminated")
    assert plant.provider.deleted == [plant.name_of(five[0].id)], "the one that had only seemed to be gone"


def test_users_may_end_as_many_as_they_like(plant: Plant, five: list[InstanceView]) -> None:
    for instance in five:
        service.terminate(plant.context, plant.principal, instance.id)
    for instance in five:
        plant.run_until(instance.id, "terminated", within_s=30)
    assert _brakes(plant) == []
    assert plant.provider.replicas == {}
