"""How long to wait before asking again."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

_random = secrets.SystemRandom()

#: No download waits longer, whatever a hub asks for; the next attempt can only be told the same.
LONGEST_PAUSE = timedelta(minutes=30)


@dataclass(frozen=True)
class Backoff:
    """Doubling waits from ``first_s`` up to ``longest_s`` seconds, for ``attempts`` failures in a row at most."""

    attempts: int
    first_s: float
    longest_s: float

    def delay_s(self, failures: int, asked_for_s: float | None = None) -> float:
        """Seconds to wait after ``failures`` (≥ 1) failures; never less than the server asked for.

        Spread by up to a quarter, so that connections which failed together do not come back together.
        """
        own: float = min(self.longest_s, self.first_s * 2 ** (failures - 1))
        return max(own, asked_for_s or 0.0) * _random.uniform(1.0, 1.25)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """``Retry-After`` (RFC 9110, section 10.2.3) in seconds from ``now``; None if absent or malformed."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):  # TypeError: a date without a zone
        return None
