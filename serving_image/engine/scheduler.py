"""Which tokens run in the next step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from serving_image.engine.kv_cache import BlockPool
from serving_image.engine.request import Request


class ScheduledRequest(NamedTuple):
    """``num_tokens`` tokens of a request, from ``start``, that run in a step."""

    request: Request
    start: int
    num_tokens: int

    @property
    def samples(self) -> bool:
        """Whether this reaches the request's last token, so that the step yields its next one."""
        return self.start + self.num_tokens == self.request.num_tokens


class Scheduler:
    """Hands out one budget of tokens per step, without phases.

    A request needs ``num_uncomputed_tokens`` to catch up: one while decoding, many after its arrival. Running requests
    are served first, in order of arrival, then waiting ones join. What does not fit in the budget runs in later steps,
    which is chunked prefill. When blocks run out, the newest running request gives its blocks back and starts over
    later (recomputing also the tokens it had generated)::

        waiting ──join──► running ──► finished
           ▲                 │
           └─── preempt ─────┘   to the front of the queue: it is older than everything that waits
    """

    def __init__(self, pool: BlockPool, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        self._pool = pool
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self.num_preemptions = 0

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        """Every live request, oldest first."""
        yield from self._running
        yield from self._waiting

    def add(self, request: Request) -> None:
        """Queue a new request. The caller has checked that it can ever fit."""
        self._waiting.append(request)

    def remove(self, requests: Iterable[Request]) -> None:
        """Forget live requests, finished or aborted, and free their blocks."""
        gone = set(requests)
        for request in gone:
            self._pool.release(request.blocks)
        self._running = [request for request in self._running if request not in gone]
        self._waiting = deque(request for request in self._waiting if request not in gone)

    def schedule(self) -> list[ScheduledRequest]:
        """The next step's work: at most ``max_num_batched_tokens`` tokens of at most ``max_num_seqs`` requests.

        Every scheduled token has a block. Empty only if no request is live.
        """
        scheduled: list[ScheduledRequest] = []
        budget = self._max_num_batched_tokens
        preempted = False
        index = 0
        while index < len(self._running) and budget > 0:
            request = self._running[index]
            while not self._grow(request):
                preempted = True
                self._preempt(self._running[-1])
                if index == len(self._running):
                    break  # it was itself the newest
            else:
                budget -= self._take(request, budget, scheduled)
                index += 1
        # A request that was just preempted must not come straight back for the blocks it gave up.
        while not preempted and budget > 0 and self._waiting and len(self._running) < self._max_num_seqs:
            request = self._waiting[0]
            if not self._grow(request):
                break
            self._running.append(self._waiting.popleft())
            budget -= self._take(request, budget, scheduled)
        return scheduled

    def advance(self, scheduled: Iterable[ScheduledRequest]) -> None:
        """Record that a step's tokens are in the cache."""
        for request, start, num_tokens in scheduled:
            request.num_computed_tokens = start + num_tokens

    def _grow(self, request: Request) -> bool:
        return self._pool.grow(request.blocks, request.num_tokens, request.max_length)

    def _take(self, request: Request, budget: int, scheduled: list[ScheduledRequest]) -> int:
        num_tokens = min(request.num_uncomputed_tokens, budget)
        scheduled.append(ScheduledRequest(request, request.num_computed_tokens, num_tokens))
        return num_tokens

    def _preempt(self, request: Request) -> None:
        self._running.remove(request)
        self._pool.release(request.blocks)
        request.num_computed_tokens = 0
        self._waiting.appendleft(request)
        self.num_preemptions += 1
