"""Time, injected: services take a clock so that tests decide what time it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time in UTC."""

    def now(self) -> datetime:
        """The present, timezone-aware."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, timezone-aware."""
        return datetime.now(UTC)


SYSTEM_CLOCK = SystemClock()
