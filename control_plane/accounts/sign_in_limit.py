"""Slowing down those who guess passwords.

An attempt is counted *before* its password is looked at, in a transaction of its own: of a hundred guesses sent at
once, only the first few are looked at, on any number of web servers. A success forgets the failures::

    begin_attempt ──► count it ──► too many? ──► un-count, 429
                                        └─► compare password ──► right: forget()
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from control_plane.accounts import repository
from control_plane.accounts.tables import LoginFailure
from control_plane.context import Context
from control_plane.errors import TooManyRequests

WINDOW = timedelta(minutes=15)
#: Failures in the window after which an address must wait: for one account, and for all accounts together.
PER_ACCOUNT = 5
PER_ADDRESS = 50


@dataclass(frozen=True)
class SignInLimit:
    """Failed sign-ins of one e-mail address from one network address."""

    context: Context
    email: str
    address: str

    def begin_attempt(self) -> None:
        """Count an attempt as failed until :meth:`forget`.

        :raises TooManyRequests: with ``retry_after_s``.
        """
        now = self.context.clock.now()
        attempt = LoginFailure(email=self.email[:320], address=self.address[:64], at=now)
        with self.context.database.transaction() as session:
            repository.forget_login_failures_before(session, now - WINDOW)
            session.add(attempt)
        with self.context.database.transaction() as session:
            wait = self._wait(session, now)
            if wait is None:
                return
            session.delete(attempt)
        raise TooManyRequests(f"too many failed sign-ins; the next attempt is possible in {wait} s", retry_after_s=wait)

    def forget(self, session: Session) -> None:
        """The password was right: start counting again."""
        repository.forget_login_failures(session, address=self.address[:64], email=self.email[:320])

    def _wait(self, session: Session, now: datetime) -> int | None:
        """Seconds until the next attempt; None if it is possible now."""
        waits = [0.0]
        for email, most in ((self.email[:320], PER_ACCOUNT), (None, PER_ADDRESS)):
            times = repository.login_failures(session, address=self.address[:64], email=email, since=now - WINDOW)
            if len(times) > most:
                # The present attempt is among them: this many must leave the window before one more fits.
                waits.append((times[len(times) - most - 1] + WINDOW - now).total_seconds())
        return math.ceil(max(waits)) or None
