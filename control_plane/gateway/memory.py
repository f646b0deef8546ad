"""What the gateway knew when the database last answered, so that serving goes on while it does not.

::

    ask(key, question) ─► the database answers ─► noted, and returned            (every request, normally)
                     └──► it does not          ─► what was noted, if it is fresh enough, else "unavailable"

Answers that refuse (a revoked key, an unknown model) are answers: they replace what was noted. So a revocation is late
only while the database is away, and never by more than ``stale_s``.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from control_plane.errors import SlipwayError, Unavailable

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: Answers kept; the least recently used go first.
_MOST = 10_000
#: After the database did not answer, requests go by what is noted for so long before one asks again.
_PAUSE_S = 1.0


class DatabaseAway(Unavailable):
    """The database does not answer, and this was not asked lately."""

    code = "database_unavailable"
    next_step = "Try again in a few seconds."


class Memory:
    """Answers by what was asked. Used by several threads; holds no secret, only digests.

    :param stale_s: how old an answer may be that is used while the database is away.
    """

    def __init__(self, stale_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stale_s = stale_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._noted: OrderedDict[bytes, tuple[float, Any]] = OrderedDict()
        self._away_until = 0.0

    def ask(self, asked: tuple[str, ...], question: Callable[[], Answer]) -> Answer:
        """The answer of ``question``, which asks the database, or what it last was.

        :raises DatabaseAway: neither is to be had.
        :raises SlipwayError: what the question raises.
        """
        key = hashlib.sha256("\0".join(asked).encode()).digest()
        if self._monotonic() < self._away_until:
            return cast(Answer, self._recall(key))
        try:
            answer = question()
        except (DBAPIError, PoolTimeout) as error:
            return cast(Answer, self._recall(key, error))
        except SlipwayError:
            with self._lock:
                self._noted.pop(key, None)
            raise
        with self._lock:
            self._noted[key] = (self._monotonic(), answer)
            self._noted.move_to_end(key)
            if len(self._noted) > _MOST:
                self._noted.popitem(last=False)
        return answer

    def _recall(
        self, key: bytes, error: SQLAlchemyError | None = None
    ) -> Any:  # an Answer: the key stands for the question
        now = self._monotonic()
        with self._lock:
            if error is not None:
                self._away_until = now + _PAUSE_S
            noted = self._noted.get(key)
        if error is not None:
            logger.warning("the database does not answer (%s); serving goes on by what is known", type(error).__name__)
        if noted is None or now - noted[0] > self._stale_s:
            raise DatabaseAway("the database does not answer") from error
        return noted[1]
