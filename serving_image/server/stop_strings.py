"""Stop strings in a stream: text that may still become one is held back, and a found one is never given out."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches one sequence.

    :ivar found: the stop string that ended the sequence, once one has.
    """

    def __init__(self, stops: Sequence[str], *, include_in_output: bool) -> None:
        self._stops = tuple(stops)
        self._include_in_output = include_in_output
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Add text; returns what can be given out. After a stop string (``found``) nothing more is."""
        if not self._stops:
            return text
        if self.found is not None or not text:
            return ""
        held = self._held + text
        # The one that ends first is the one that a text coming character by character would have met.
        matches = [(at + len(stop), -len(stop), stop) for stop in self._stops if (at := held.find(stop)) >= 0]
        if matches:
            end, _, self.found = min(matches)
            self._held = ""
            return held[:end] if self._include_in_output else held[: end - len(self.found)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """The text still held back, at the end of the sequence."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``, short of all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
