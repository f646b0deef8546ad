"""Silence is added up look by look: seconds in which nobody looked, or in which the clock jumped, do not count."""

from __future__ import annotations

from datetime import datetime

from control_plane.instances.tables import Replica

#: A running replica that is silent for so long gets no more requests.
UNREACHABLE_S = 10.0
#: … and for so long is started anew.
HUNG_S = 120.0
#: What one look can add at most: three looks' pause while something is wrong. A control plane that was stopped for an
#: hour, or whose clock moved by one, has not watched an engine be silent for that hour.
MAX_GAP_S = 6.0


def silent_s(replica: Replica, now: datetime) -> float:
    """Seconds for which ``replica`` has been silent, if it is silent now."""
    return replica.silent_s + min(MAX_GAP_S, seconds_since(replica.looked_at, now))


def seconds_since(moment: datetime | None, now: datetime) -> float:
    """Seconds from ``moment`` to ``now``; 0 when it was never, or lies ahead because the clock was set back."""
    return max(0.0, (now - moment).total_seconds()) if moment is not None else 0.0
