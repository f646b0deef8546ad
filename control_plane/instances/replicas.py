"""What replica rows are at their beginning and after a restart: names, boots, the values that a new boot resets."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict

from control_plane.instances.tables import Instance, Replica

#: Crashes in a row after which trying again is pointless.
MAX_RESTARTS = 5


class ReplicaValues(TypedDict, total=False):
    """Columns of a replica that a reconciler may write."""

    boot_token: str
    url: str | None
    ready: bool
    condition: str | None
    restarts: int
    restart_at: datetime | None
    last_exit_code: int | None
    absent_count: int
    generation: int
    retiring_since: datetime | None
    node: str | None
    silent_s: float
    looked_at: datetime | None
    started_at: datetime | None
    ready_at: datetime | None
    last_seen_at: datetime | None


def resource_name(instance: Instance, ordinal: int) -> str:
    """What the provider knows a replica by: the same for every boot, and for nothing else."""
    return f"slipway-{instance.id.hex}-{ordinal}"


def new_replicas(instance: Instance, present: Iterable[Replica], count: int, now: datetime) -> list[Replica]:
    """Rows for ``count`` more replicas of the present generation; each takes the lowest ordinal that is free."""
    taken = {replica.ordinal for replica in present}
    free = [ordinal for ordinal in range(len(taken) + count) if ordinal not in taken]
    return [
        Replica(
            instance_id=instance.id,
            ordinal=ordinal,
            provider=instance.provider,
            resource_name=resource_name(instance, ordinal),
            boot_token=new_boot_token(),
            generation=instance.generation,
            created_at=now,
        )
        for ordinal in free[:count]
    ]


def new_boot(generation: int) -> ReplicaValues:
    """What changes when the present boot of a replica is over: its identity, and all that was true of it alone.

    :param generation: the instance's: another boot runs what the instance wants now.
    """
    return {"boot_token": new_boot_token(), "generation": generation, "condition": None, **over()}


def over() -> ReplicaValues:
    """What changes when a boot is over and none follows: its identity stays, so that its log can be found."""
    return {
        "url": None,
        "ready": False,
        "restart_at": None,
        "absent_count": 0,
        "node": None,
        "silent_s": 0.0,
        "looked_at": None,
        "started_at": None,
        "ready_at": None,
        "last_seen_at": None,
    }


def is_doomed(replica: Replica) -> bool:
    """Whether it crashed so often that another restart would not help."""
    return replica.restarts > MAX_RESTARTS


def is_given_up(replica: Replica) -> bool:
    """Whether it has ended for good: doomed, and nothing of it runs that a restart would have to end."""
    return is_doomed(replica) and replica.last_exit_code is not None and replica.started_at is None


def merged(replica: Replica, values: ReplicaValues | None) -> Replica:
    """``replica`` as it is once ``values`` are written: itself where there are none, else a detached copy."""
    return Replica(**{**replica.model_dump(), **values}) if values else replica


def new_boot_token() -> str:
    """128 random bits."""
    return secrets.token_hex(16)
