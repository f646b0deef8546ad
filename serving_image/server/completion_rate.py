"""How fast sequences end, for telling a client when to come back."""

from __future__ import annotations

from collections import deque
from math import inf

#: Ends further back say nothing about now.
WINDOW_SECONDS = 60.0
_MOST_ENDS = 256


class CompletionRate:
    """Ends per second over the last minute, or over the last 256 ends if those were quicker."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=_MOST_ENDS)

    def count(self, now: float) -> None:
        """A sequence ended."""
        self._ends.append(now)

    def seconds_for(self, num_sequences: int, now: float) -> float:
        """How long so many sequences take to end at this rate; infinite if fewer than two have ended lately."""
        while self._ends and now - self._ends[0] > WINDOW_SECONDS:
            self._ends.popleft()
        # The first end only starts the clock: a server may have been idle before it.
        ended = len(self._ends) - 1
        return num_sequences * (now - self._ends[0]) / ended if ended > 0 else inf
