"""A clock that tests move by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Starts at a fixed time and moves only by :meth:`advance`, or, as set by an administrator, by :meth:`jump`."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        return self._now

    def elapsed_s(self) -> float:
        """Seconds that really passed; no jump changes them."""
        return self._elapsed_s

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._elapsed_s += max(0.0, seconds)

    def jump(self, seconds: float) -> None:
        """Show another time from now on; nothing happens meanwhile."""
        self._now += timedelta(seconds=seconds)
