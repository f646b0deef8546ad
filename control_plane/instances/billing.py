"""What an instance costs: the price per hour, for the time in which it holds hardware."""

from __future__ import annotations

from datetime import datetime

from control_plane.instances.tables import Instance


def start(instance: Instance, now: datetime) -> None:
    """Hardware is held from ``now`` on, unless it was already."""
    if instance.billing_since is None:
        instance.billing_since = now


def stop(instance: Instance, now: datetime) -> None:
    """No hardware is held any more."""
    instance.cost_accrued = cost_so_far(instance, now)
    instance.billing_since = None


def cost_so_far(instance: Instance, now: datetime) -> float:
    """US dollars until ``now``."""
    if instance.billing_since is None:
        return instance.cost_accrued
    hours = (now - instance.billing_since).total_seconds() / 3600
    return instance.cost_accrued + hours * instance.price_per_hour
