"""Bearing with a server that is away for a moment: a web process that was killed is back within seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from control_plane.errors import Unavailable

#: A server away for longer than this is really gone.
LIMIT_S = 60.0


class Patience:
    """Excuses errors until no answer has come for :data:`LIMIT_S` seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last_answer = now()

    def answered(self) -> None:
        """The server is there."""
        self._last_answer = self._now()

    def excuse(self, error: Unavailable) -> None:
        """Let ``error`` pass, or raise it: enough is enough."""
        if self._now() - self._last_answer > LIMIT_S:
            raise error
