"""What an instance costs: the price per hour of a replica, for the time in which a provider runs it.

A replica that waits for hardware costs nothing. ``billing_since`` is when the number of running ones last changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from control_plane.instances.tables import Instance, Replica


def held(replicas: Iterable[Replica]) -> int:
    """How many of ``replicas`` hold hardware."""
    return sum(replica.started_at is not None for replica in replicas)


def settle(instance: Instance, before: int, after: int, now: datetime) -> None:
    """From ``now`` on ``after`` replicas hold hardware; until now it were ``before``."""
    if before == after and (instance.billing_since is None) == (after == 0):
        return
    instance.cost_accrued = cost_so_far(instance, before, now)
    instance.billing_since = now if after else None


def cost_so_far(instance: Instance, replicas: int, now: datetime) -> float:
    """US dollars until ``now``, while ``replicas`` hold hardware; never less than before, even if the clock was set
    back."""
    if instance.billing_since is None:
        return instance.cost_accrued
    hours = max(0.0, (now - instance.billing_since).total_seconds() / 3600)
    return instance.cost_accrued + hours * replicas * instance.price_per_hour / instance.replica_count
