"""What replica rows are at their beginning and after a restart: names, boots, the values that a new boot resets."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import TypedDict

from control_plane.instances.tables import Instance, Replica


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


def missing_replicas(instance: Instance, present: tuple[Replica, ...], provider: str, now: datetime) -> list[Replica]:
    """Rows for the replicas that ``instance`` wants and does not have yet."""
    taken = {replica.ordinal for replica in present}
    return [
        Replica(
            instance_id=instance.id,
            ordinal=ordinal,
            provider=provider,
            resource_name=resource_name(instance, ordinal),
            boot_token=new_boot_token(),
            generation=instance.generation,
            created_at=now,
        )
        for ordinal in range(instance.replica_count)
        if ordinal not in taken
    ]


def new_boot() -> ReplicaValues:
    """What changes when the present boot of a replica is over: its identity, and all that was true of it alone."""
    return {
        "boot_token": new_boot_token(),
        "url": None,
        "ready": False,
        "condition": None,
        "restart_at": None,
        "absent_count": 0,
        "node": None,
        "silent_s": 0.0,
        "looked_at": None,
        "started_at": None,
        "ready_at": None,
        "last_seen_at": None,
    }


def new_boot_token() -> str:
    """128 random bits."""
    return secrets.token_hex(16)
