"""Hints on a real Redis: which come first, and how many there are when workers are behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from control_plane.celery_app import ROUTINE, URGENT, celery_app, hints_waiting, make_celery
from control_plane.instances import tasks
from control_plane.settings import Settings
from tests.support.instances import Plant
from tests.support.redis import running_redis
from tests.support.slipway import free_port


@pytest.fixture
def celery(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """This process is a worker whose hints go to a Redis of its own."""
    with running_redis() as broker_url:
        app = make_celery(Settings(data_dir=plant.context.settings.data_dir, broker_url=broker_url))
        celery_app.set_current()  # that one is for these tests only
        monkeypatch.setattr(tasks, "celery_app", app)
        monkeypatch.setattr(tasks, "get_context", lambda: plant.context)
        monkeypatch.setattr(tasks, "_pace", tasks.Pace())
        yield app
        app.close()


def test_what_somebody_asked_for_goes_before_what_workers_tell_each_other(celery: Celery) -> None:
    for number in range(20):
        celery.send_task("note", args=[f"routine {number}"], priority=ROUTINE)
    celery.send_task("note", args=["urgent"], priority=URGENT)
    assert hints_waiting(celery) == 21
    with celery.connection_for_read() as connection, connection.SimpleQueue(celery.conf.task_default_queue) as queue:
        received = []
        for _ in range(21):
            message = queue.get(timeout=10)
            message.ack()
            received.append(message.payload[0][0])
    assert received == ["urgent", *(f"routine {number}" for number in range(20))]
    assert hints_waiting(celery) == 0


def test_a_sweep_tells_of_all_that_is_due_unless_workers_are_behind(
    plant: Plant, celery: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MANY_HINTS", 3)
    monkeypatch.setattr(tasks, "LONGEST_WAITING", 2)
    plant.context.settings.sweep_interval_s = 1e-9  # every tick is one of its own here
    launched = []
    for _ in range(4):
        launched.append(plant.launch().id)
        plant.clock.advance(0.1)
    plant.hints.clear()
    tasks.sweep()
    assert [row for _, row in plant.hints] == launched

    plant.hints.clear()
    for row in launched:
        celery.send_task("instances.reconcile", args=[str(row)], priority=ROUTINE)
    tasks.sweep()
    assert [row for _, row in plant.hints] == launched[:2], "those that have waited longest, whatever is in the queue"

    plant.reconcile(launched[0])
    plant.hints.clear()
    tasks.sweep()
    assert launched[1] in [row for _, row in plant.hints]


@pytest.mark.usefixtures("celery")
def test_ticks_that_piled_up_are_one_sweep(plant: Plant) -> None:
    plant.context.settings.sweep_interval_s = 3600
    launched = plant.launch()
    plant.hints.clear()
    for _ in range(50):
        tasks.sweep()
    assert plant.hints == [("instances.reconcile", launched.id)]


def test_a_broker_that_is_away_keeps_nobody_waiting(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_celery(
        Settings(data_dir=plant.context.settings.data_dir, broker_url=f"redis://127.0.0.1:{free_port()}/0")
    )
    slept: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", slept.append)
    with pytest.raises(OperationalError):
        app.send_task("instances.reconcile", args=["any"])
    assert sum(slept) == 0
