"""What random histories have found (test_state_machine.py), each told again in its shortest form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.instances import service
from control_plane.providers.fake.records import EnginePlan
from tests.support.interleaving import Process
from tests.support.lifecycle import World


@pytest.fixture
def world(migrated_sqlite: Path, tmp_path: Path) -> Iterator[World]:
    world = World(migrated_sqlite, tmp_path)
    yield world
    assert world.violations == []
    world.close()


def test_an_engine_that_loads_is_not_taken_for_gone_because_answers_lag(world: World) -> None:
    """Twice "absent" within the three seconds by which answers lagged was believed, and the engine was replaced."""
    world.place.faults.find_lag_s = 3
    world.place.default_plan = EnginePlan(ready_after_s=20)
    world.launch(1)
    for _ in range(60):
        world.turn(0.5)
    assert [row.phase for row in world.rows()] == ["running"]
    assert len(world.place.boots) == 1


def test_what_is_not_listed_yet_is_ended_all_the_same(world: World) -> None:
    """Seen beside that one: a launch terminated while answers lag was called absent twice, and its engine ran on."""
    launched = world.launch(1)
    world.turn(1)
    assert len(world.running()) == 1
    world.place.faults.find_lag_s = 3
    service.terminate(world.context, world.principal, launched.id)
    while [row.phase for row in world.rows()] != ["terminated"]:
        world.turn(0.5)
    assert world.running() == []


def test_a_worker_that_wakes_too_late_does_not_end_the_next_boot(world: World) -> None:
    """It stood still between seeing a dead boot and ordering its deletion, and the order named no boot."""
    launched = world.launch(1)
    while [row.phase for row in world.rows()] != ["running"]:
        world.turn(1)
    (status,) = world.running()
    world.blame(status, "exit code 1")
    world.place.exit(status.name, 1)
    while [row.phase for row in world.rows()] != ["provisioning"]:
        world.turn(1)
    world.clock.advance(2)
    worker = Process("stalled worker", lambda: world.reconcile(launched.id))
    while worker.at != "before delete":
        worker.resume(1)
    for _ in range(10):
        world.turn(5)
    (next_boot,) = world.running()
    assert next_boot.boot_token != status.boot_token
    worker.resume(1000)
    assert [running.boot_token for running in world.running()] == [next_boot.boot_token]
    assert len(world.place.boots) == 2
