"""Launches at a rate or all at once, and how long each took, by the control plane's own audit trail."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlmodel import col, func, select

from control_plane.audit.tables import AuditEvent
from control_plane.instances.tables import Instance
from tests.support.fleet import Fleet

#: A model that comes with Slipway: nothing is downloaded.
BODY = {"model": "slipway/starter", "hardware": "fake-cpu"}
#: Launches before those that are measured: processes import what they need when they first need it.
WARM_UP = 16


class Sent(NamedTuple):
    """One launch: seconds from when it was due to its answer, and how late it was sent."""

    instance_id: UUID
    answered_s: float
    late_s: float


def launch_steadily(fleet: Fleet, per_second: float, seconds: float, threads: int = 64) -> list[Sent]:
    """Send each launch when its time has come, whatever became of those before (an open loop).

    :param threads: as many can wait for their answers before one is sent late.
    """
    count = round(per_second * seconds)
    start = time.monotonic() + 0.5

    def send(numbers: range) -> list[Sent]:
        api, sent = fleet.api(), []
        for number in numbers:
            due = start + number / per_second
            time.sleep(max(0.0, due - time.monotonic()))
            late_s = time.monotonic() - due
            instance_id = UUID(api.launch(name=f"steady-{number}", **BODY))
            sent.append(Sent(instance_id, time.monotonic() - due, late_s))
        api.close()
        return sent

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(send, [range(first, count, threads) for first in range(threads)]))
    return [sent for part in parts for sent in part]


def warm_up(fleet: Fleet) -> None:
    """Launch a few, and wait until they run."""
    launch_at_once(fleet, WARM_UP, name="warm-up")
    wait_until(fleet, "running", WARM_UP)


def launch_at_once(fleet: Fleet, count: int, threads: int = 8, name: str = "burst") -> list[UUID]:
    """As fast as the web server takes them."""

    def send(numbers: range) -> list[UUID]:
        api = fleet.api()
        ids = [UUID(api.launch(name=f"{name}-{number}", **BODY)) for number in numbers]
        api.close()
        return ids

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(send, [range(first, count, threads) for first in range(threads)]))
    return [instance_id for part in parts for instance_id in part]


def wait_until(fleet: Fleet, phase: str, count: int, patience_s: float = 300.0) -> None:
    """Wait until ``count`` instances have been in ``phase``.

    :raises TimeoutError: they have not, in ``patience_s`` seconds.
    """
    deadline = time.monotonic() + patience_s
    query = select(func.count()).select_from(AuditEvent).where(AuditEvent.action == f"instance.{phase}")
    while True:
        with fleet.context.database.reading() as session:
            reached = session.exec(query).one()
        if reached >= count:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{reached} of {count} instances were {phase} within {patience_s:g} s")
        time.sleep(0.5)


def times(fleet: Fleet, phase: str, instance_ids: list[UUID]) -> list[tuple[datetime, datetime]]:
    """Of each instance: when its row was made, and when it first came into ``phase``."""
    query = (
        select(Instance.id, Instance.created_at, func.min(AuditEvent.at))
        .join(AuditEvent, col(AuditEvent.object_id) == Instance.id)
        .where(AuditEvent.action == f"instance.{phase}")
        .group_by(col(Instance.id), col(Instance.created_at))
    )
    with fleet.context.database.reading() as session:
        found = {instance_id: (made, at) for instance_id, made, at in session.exec(query)}
    return [found[instance_id] for instance_id in instance_ids]


def waits_s(fleet: Fleet, phase: str, instance_ids: list[UUID]) -> list[float]:
    """Seconds from each instance's row to its coming into ``phase``."""
    return [(at - made).total_seconds() for made, at in times(fleet, phase, instance_ids)]


def percentile(values: list[float], share: float) -> float:
    """The least value that at least ``share`` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-round(share * 1000) * len(ordered) // 1000) - 1)]
