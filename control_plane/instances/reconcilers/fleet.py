"""Which replicas there should be: more of them, fewer, or newer ones. Pure: rows in, changes of rows out.

A roll, with two wanted; ``o`` serves with the earlier generation, ``n`` with the present one, ``·`` starts::

    o o ─► o o · ─► o o n ─► (o) o n ─► o n ─► o n · ─► o n n ─► (o) n n ─► n n
           one more  ready    an old one retires: no new requests, drains, ends, is absent twice

At no time do fewer serve than are wanted, and never are there more than one too many. Where the provider has no room
for one more, an old one retires first, unless it is the only one that serves. A newcomer that crashes again and again
stops the roll: the old ones go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from control_plane.instances.lifecycle import Phase
from control_plane.instances.replicas import ReplicaValues, is_given_up, merged, new_boot, new_replicas
from control_plane.instances.tables import Instance, Replica

#: Seconds for which a newcomer may wait for hardware before the roll makes room for it.
NO_ROOM_AFTER_S = 30.0


@dataclass(frozen=True)
class Notice:
    """Something to tell of the fleet as a whole."""

    reason: str
    next_step: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is to change. ``rolling`` while replicas of an earlier generation are to be replaced."""

    new: tuple[Replica, ...] = ()
    values: Mapping[UUID, ReplicaValues] = field(default_factory=dict)
    rolling: bool = False
    notice: Notice | None = None


def active(replicas: Iterable[Replica]) -> list[Replica]:
    """Those that are not on their way out."""
    return [replica for replica in replicas if replica.retiring_since is None]


def plan(instance: Instance, replicas: Sequence[Replica], now: datetime) -> Plan:
    """What brings ``replicas`` nearer to what ``instance`` wants."""
    renewed = _renewed(instance, active(replicas))
    present = [merged(replica, renewed.get(replica.id)) for replica in active(replicas)]
    old = [replica for replica in present if replica.generation != instance.generation]
    change = _roll(instance, replicas, present, old, now) if old else _resize(instance, replicas, present, now)
    return Plan(change.new, {**renewed, **change.values}, bool(old), change.notice)


def _renewed(instance: Instance, present: list[Replica]) -> dict[UUID, ReplicaValues]:
    """Replicas of an earlier generation that serve nobody take the present one as it is."""
    return {
        replica.id: new_boot(instance.generation) | {"restarts": 0}
        for replica in present
        if replica.generation != instance.generation and (replica.started_at is None or instance.phase != Phase.RUNNING)
    }


def _resize(instance: Instance, replicas: Sequence[Replica], present: list[Replica], now: datetime) -> Plan:
    missing = instance.replica_count - len(present)
    if missing >= 0:
        return Plan(tuple(new_replicas(instance, replicas, missing, now)))
    leavers = sorted(present, key=lambda replica: (replica.ready, -replica.ordinal))[:-missing]
    return Plan(values={replica.id: _retire(now) for replica in leavers})


def _roll(
    instance: Instance, replicas: Sequence[Replica], present: list[Replica], old: list[Replica], now: datetime
) -> Plan:
    waiting = next((r for r in present if r.generation == instance.generation and not r.ready), None)
    given_up = next((r for r in present if r.generation == instance.generation and is_given_up(r)), None)
    leaver = min(old, key=lambda replica: (replica.ready, -replica.ordinal))
    spare = len(present) - instance.replica_count
    if given_up is not None:
        return Plan(notice=_stopped(given_up))
    if waiting is None and spare > 0:
        return Plan(values={leaver.id: _retire(now)})
    if waiting is None and len(replicas) == len(present):  # nobody is still leaving
        return Plan(tuple(new_replicas(instance, replicas, 1, now)))
    if waiting is None or not _has_no_room(waiting):
        return Plan()
    serving = sum(replica.ready for replica in present)
    if serving > 1 and spare > 0:
        return Plan(values={leaver.id: _retire(now)})
    return Plan(notice=_no_room(waiting) if serving <= 1 else None)


def _has_no_room(replica: Replica) -> bool:
    return replica.started_at is None and replica.silent_s >= NO_ROOM_AFTER_S


def _retire(now: datetime) -> ReplicaValues:
    return {"retiring_since": now, "ready": False, "condition": "finishing its requests", "absent_count": 0}


def _stopped(replica: Replica) -> Notice:
    return Notice(
        f"the restart has stopped, because the new engine does not come up; the old ones serve on: {replica.condition}",
        "Change what it names, or restart again.",
    )


def _no_room(replica: Replica) -> Notice:
    return Notice(
        f"there is no room for a new engine beside the old one: {replica.condition}",
        "Wait until there is, or restart with mode=replace, which ends the old engine first.",
    )
