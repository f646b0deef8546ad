"""How fast bytes arrive, smoothed."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

#: Long enough to be steady, short enough to follow a change that a person would notice.
WINDOW = timedelta(seconds=10)


class RateMeter:
    """Bytes per second over the last :data:`WINDOW`. What is on disk at the start was not fetched now."""

    def __init__(self, now: datetime, bytes_done: int) -> None:
        self._samples = deque([(now, bytes_done)])

    def add(self, now: datetime, bytes_done: int) -> float:
        """Record a sample; returns the rate, never below 0 (a file that is fetched anew takes bytes back)."""
        self._samples.append((now, bytes_done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()
        then, had = self._samples[0]
        seconds = (now - then).total_seconds()
        return max(0.0, (bytes_done - had) / seconds) if seconds > 0 else 0.0
