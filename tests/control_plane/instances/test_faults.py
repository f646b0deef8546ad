"""The test that proves it: after random faults, kills and wishes the provider holds what the rows say, no more."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.database import Database
from control_plane.errors import Conflict
from control_plane.instances import service
from control_plane.instances.engine_probe import Probe
from control_plane.instances.reconcile import LEASE
from control_plane.providers.base import ProviderUnavailable, ReplicaState
from tests.control_plane.instances.test_interruptions import Killed
from tests.support.clock import FakeClock
from tests.support.instances import Plant

_LOST = ProviderUnavailable("lost", "Wait.")
_WISHES: dict[str, Callable[..., object]] = {
    "start": service.start,
    "stop": service.stop,
    "restart": service.restart,
    "terminate": service.terminate,
}
_OPERATIONS = ("create", "find", "delete")
_ACTION = st.one_of(
    st.tuples(st.just("step"), st.just("")),
    st.tuples(st.just("step"), st.just("")),
    st.tuples(st.just("wish"), st.sampled_from(sorted(_WISHES))),
    st.tuples(st.just("refuse"), st.sampled_from(_OPERATIONS)),
    st.tuples(st.just("lose reply"), st.sampled_from(("create", "delete"))),
    st.tuples(st.just("kill worker"), st.sampled_from(("create", "delete"))),
    st.tuples(st.just("crash"), st.sampled_from(("1", "2", "-9"))),
    st.tuples(st.just("lose host"), st.just("")),
    st.tuples(st.just("slow deletes"), st.just("")),
    st.tuples(st.just("clock"), st.sampled_from(("25", "4000"))),
)


@given(
    actions=st.lists(_ACTION, min_size=5, max_size=30),
    replicas=st.integers(1, 2),
    last=st.sampled_from(sorted(_WISHES)),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_leaks_and_nothing_is_stuck(
    migrated_sqlite: Path, actions: list[tuple[str, str]], replicas: int, last: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(migrated_sqlite, Path(folder) / "test.db")
        database = Database(f"sqlite:///{copy}")
        plant = Plant.make(database, f"sqlite:///{copy}", FakeClock(), Path(folder))
        launched = plant.launch(replicas={"min": replicas, "max": replicas})
        for action, argument in actions:
            _act(plant, launched.id, action, argument)
        _settle(plant, launched.id, last)
        database.engine.dispose()


def _act(plant: Plant, instance_id: UUID, action: str, argument: str) -> None:
    provider = plant.provider
    match action:
        case "step":
            _step(plant, instance_id)
        case "wish":
            _wish(plant, instance_id, argument)
        case "refuse":
            provider.fail_before[argument].append(_LOST)
        case "lose reply":
            provider.fail_after[argument].append(_LOST)
        case "kill worker":
            provider.fail_after[argument].append(Killed())
        case "crash":
            for name, status in list(provider.replicas.items()):
                if status.state is ReplicaState.RUNNING:
                    provider.exit(name, int(argument), "last words\n")
        case "lose host":
            provider.lose_everything()
        case "slow deletes":
            provider.deletes_take_effect = not provider.deletes_take_effect
        case "clock":
            plant.clock.advance(float(argument))
    assert len(provider.replicas) <= 2
    assert plant.get(instance_id).reason


def _step(plant: Plant, instance_id: UUID) -> None:
    try:
        plant.step(instance_id)
    except Killed:
        plant.clock.advance(LEASE.total_seconds() + 1)


def _wish(plant: Plant, instance_id: UUID, wish: str) -> None:
    try:
        _WISHES[wish](plant.context, plant.principal, instance_id)
    except Conflict:
        assert plant.get(instance_id).phase in {"requested", "stopping", "terminating", "terminated"}


def _settle(plant: Plant, instance_id: UUID, last: str) -> None:
    """Faults end; the last wish is granted in bounded time, or was refused for good reason; the books agree."""
    provider = plant.provider
    provider.fail_before.clear()
    provider.fail_after.clear()
    provider.deletes_take_effect, provider.engines_answer = True, Probe.READY
    plant.clock.advance(LEASE.total_seconds() + 1)
    _wish(plant, instance_id, last)
    plant.run_until(instance_id, "running", "stopped", "failed", "terminated")
    for _ in range(10):
        plant.step(instance_id)
    instance = plant.get(instance_id)
    live = {name for name, status in provider.replicas.items() if status.state is ReplicaState.RUNNING}
    rows = {replica.resource_name: replica for replica in plant.replicas(instance_id)}
    if instance.phase == "running":
        assert live == set(rows)
        assert all(provider.replicas[name].boot_token == rows[name].boot_token for name in live)
        assert all(replica.ready for replica in rows.values())
    else:
        assert provider.replicas == {}
        before = instance.cost_so_far
        plant.clock.advance(3600)
        assert plant.get(instance_id).cost_so_far == before, "nothing is billed that is not held"
        assert instance.next_attempt_at is None
    if last == "terminate":
        assert instance.phase == "terminated"
