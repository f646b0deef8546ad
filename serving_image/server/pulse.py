"""Whether the engine lives and gets on, judged by what it says.

An engine that is stopped, or whose interpreter is held by native code, is silent. One that is stuck in a step goes on
speaking, but its steps no longer count up.
"""

from __future__ import annotations

from serving_image.engine.protocol import EngineStats


class Pulse:
    """The times of the engine's last word and last progress; every ``now`` is a reading of one clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._heard_at = self._progress_at = now
        self._step = 0
        self._busy = False

    def heard(self, now: float) -> None:
        """The engine said something."""
        self._heard_at = now

    def stepped(self, stats: EngineStats, now: float) -> None:
        """The engine told its state, after a step or between steps."""
        self.heard(now)
        busy = stats.num_running + stats.num_waiting > 0
        if stats.step != self._step or not (busy and self._busy):
            self._progress_at = now
        self._step, self._busy = stats.step, busy

    def seconds_of_silence(self, now: float) -> float:
        """Since the engine's last word."""
        return now - self._heard_at

    def seconds_without_progress(self, now: float) -> float:
        """For how long the engine has had work but ended no step; 0 when idle."""
        return now - self._progress_at if self._busy else 0.0
