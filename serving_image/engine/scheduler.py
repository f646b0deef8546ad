"""Which tokens run in the next step."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from serving_image.engine.block_pool import BlockPool, CachedPrefix
from serving_image.engine.request import Request
from serving_image.engine.request_queue import RequestQueue
from serving_image.engine.step import ScheduledRequest


class Schedule(NamedTuple):
    """A step's work, and how long the requests that run for the first time have waited, in seconds."""

    items: list[ScheduledRequest]
    queue_seconds: list[float]


class Scheduler:
    """Hands out one budget of tokens per step, without phases.

    A request needs ``num_uncomputed_tokens`` to catch up: one while decoding, many after its arrival. A step's budget
    goes to

    1. running requests that decode: one token each, in order of rank;
    2. those that need more, running or waiting. Better priorities come first, then older requests; but those that need
       at most half of what the oldest does overtake it, the shortest first, up to half of what is left. So a short
       prompt is not held up by a long one and never stops it either. What does not fit runs in later steps.

    When blocks run out, the running request of the worst rank gives its own back and starts over later, with what is
    still cached of them. So it does for a waiting request of a better priority that lacks a slot or blocks::

        waiting ──join──► running ──► finished
           ▲                 │
           └─── preempt ─────┘   to its old place: ranks never change, so no two requests preempt each other in turn

    A preempted request cannot join in the very schedule that preempts it. As the core has read every step but one when
    it schedules, all that was launched for a request before its preemption has been read before it runs again.
    """

    def __init__(self, pool: BlockPool, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        self._pool = pool
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._waiting = RequestQueue()
        self._running = RequestQueue()
        self._num_added = 0
        self.num_preemptions = 0
        self.prefix_cache_queries = 0
        """Prompt tokens that were looked up in the prefix cache, once for each request that has run."""
        self.prefix_cache_hits = 0
        """Those of them that were found there."""

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def add(self, request: Request) -> None:
        """Queue a new request. The caller has checked that it can ever fit."""
        request.order = self._num_added
        self._num_added += 1
        self._waiting.add(request)

    def remove(self, requests: Iterable[Request]) -> None:
        """Forget live requests, finished or aborted, and free their blocks.

        Their blocks may go to others at once, even if a launched step still writes to them: steps run in order.
        """
        for request in requests:
            self._pool.release(request.blocks)
            if not self._running.discard(request):
                self._waiting.discard(request)

    def schedule(self, now: float) -> Schedule:
        """The next step's work: at most ``max_num_batched_tokens`` tokens of at most ``max_num_seqs`` requests.

        Every scheduled token has a block, and counts as computed from now on. Empty only if no request is live or all
        that is left of those that are is pending.
        """
        preempted: list[Request] = []
        candidates = self._joinable(preempted)
        items, behind = self._schedule_decodes(preempted)
        candidates += behind
        budget = self._max_num_batched_tokens - len(items)
        queue_seconds: list[float] = []
        if budget and candidates:
            candidates.sort(key=attrgetter("rank"))
            for _, equals in groupby(candidates, attrgetter("priority")):
                for item in self._share(list(equals), budget):
                    budget -= item.num_tokens
                    items.append(item)
                    if item.request.queue_seconds is None:
                        item.request.queue_seconds = now - item.request.arrived_at
                        queue_seconds.append(item.request.queue_seconds)
        for request in preempted:
            self._waiting.add(request)
        return Schedule(items, queue_seconds)

    def _joinable(self, preempted: list[Request]) -> list[Request]:
        """The waiting requests, in order of rank, that would all get a slot and blocks now.

        Nobody overtakes one that does not fit, or a large request might wait for ever. For each running request one
        block of each group is kept: without it, who joins might be preempted in the next step.
        """
        if not self._waiting:
            return []
        joinable: list[Request] = []
        slots = self._max_num_seqs - len(self._running)
        growth = self._pool.num_groups
        free = self._pool.num_free - growth * len(self._running)
        for request in self._waiting:
            worst = self._running[-1].priority if self._running else request.priority
            if slots == 0 and worst <= request.priority:
                break
            cost = self._pool.cost(request.num_tokens, self._lookup(request))
            for victim in self._victims(request, slots, cost - free):
                slots += 1
                free += self._preempt(victim, preempted) + growth
            if slots == 0 or free < cost:
                break
            slots -= 1
            free -= cost + growth
            joinable.append(request)
        return joinable

    def _victims(self, request: Request, slots: int, lacking: int) -> list[Request]:
        """Whom to preempt, worst first, so that ``request`` gets a slot and the blocks it lacks; none if in vain."""
        victims: list[Request] = []
        for victim in reversed(self._running):
            if (slots + len(victims) > 0 and lacking <= 0) or victim.priority <= request.priority:
                break
            victims.append(victim)
            lacking -= victim.blocks.num_held + self._pool.num_groups
        return victims if lacking <= 0 else []

    def _schedule_decodes(self, preempted: list[Request]) -> tuple[list[ScheduledRequest], list[Request]]:
        """The running requests that decode, as far as the budget goes, and those that are further behind."""
        items: list[ScheduledRequest] = []
        behind: list[Request] = []
        budget = self._max_num_batched_tokens
        index = 0
        while index < len(self._running):  # it may become shorter, from its end
            request = self._running[index]
            index += 1
            uncomputed = request.num_uncomputed_tokens
            if uncomputed > 1:
                # Its windows move on, which costs a block where others share what they leave.
                if self._grow(request, preempted):
                    behind.append(request)
            elif uncomputed == 1 and len(items) < budget and self._grow(request, preempted):
                items.append(_advance(request, 1, self._pool.block_size))
        return items, behind

    def _grow(self, request: Request, preempted: list[Request]) -> bool:
        """Give a running request the blocks it needs, if need be those of worse ranks; False if it is the worst."""
        while not self._pool.grow(request.blocks, request.num_tokens, request.num_computed_tokens):
            victim = self._running[-1]
            self._preempt(victim, preempted)
            if victim is request:
                return False
        return True

    def _share(self, candidates: list[Request], budget: int) -> list[ScheduledRequest]:
        """Divide what is left of the budget among candidates of one priority, given in order of rank."""
        items: list[ScheduledRequest] = []
        while candidates and budget > 0:
            oldest = candidates[0]
            guaranteed = min(oldest.num_uncomputed_tokens, _half(budget))
            for request in [*_overtaking(oldest, candidates, budget), oldest]:
                limit = budget if request is oldest else budget - guaranteed
                if limit > 0:
                    candidates.remove(request)
                    if request.blocks.groups or self._join(request):
                        num_tokens = min(request.num_uncomputed_tokens, limit)
                        items.append(_advance(request, num_tokens, self._pool.block_size))
                        budget -= num_tokens
        return items

    def _join(self, request: Request) -> bool:
        """Let a waiting request run, from where the prefix cache ends; False if too few blocks are left."""
        prefix = self._lookup(request)
        if not self._pool.start(request.blocks, request.num_tokens, prefix):
            return False
        request.num_computed_tokens = prefix.num_blocks * self._pool.block_size
        if request.queue_seconds is None:
            request.num_cached_tokens = request.num_computed_tokens
            self.prefix_cache_queries += request.num_prompt_tokens if self._may_share(request) else 0
            self.prefix_cache_hits += request.num_cached_tokens
        self._waiting.discard(request)
        self._running.add(request)
        return True

    def _lookup(self, request: Request) -> CachedPrefix:
        """What is cached for a request that waits; never its last token, whose scores the next one is chosen by."""
        limit = request.num_tokens - 1 if self._may_share(request) else 0
        return self._pool.lookup(request.blocks, request.tokens, limit)

    def _may_share(self, request: Request) -> bool:
        # Prompt logprobs need every prompt token's scores.
        return self._pool.enable_prefix_caching and request.sampling.prompt_logprobs is None

    def _preempt(self, request: Request, preempted: list[Request]) -> int:
        """Take a running request's blocks; how many of them nobody else holds."""
        free = self._pool.num_free
        self._running.discard(request)
        self._pool.release(request.blocks)
        request.num_computed_tokens = 0
        preempted.append(request)
        self.num_preemptions += 1
        return self._pool.num_free - free


def _half(budget: int) -> int:
    return -(-budget // 2)


def _overtaking(oldest: Request, candidates: list[Request], budget: int) -> list[Request]:
    """Who may run before the oldest candidate, the shortest first; nobody if its sure half is all that one needs."""
    needed = oldest.num_uncomputed_tokens
    if needed <= _half(budget):
        return []
    shorter = [request for request in candidates if 2 * request.num_uncomputed_tokens <= needed]
    return sorted(shorter, key=attrgetter("num_uncomputed_tokens"))


def _advance(request: Request, num_tokens: int, block_size: int) -> ScheduledRequest:
    """Take the next ``num_tokens`` tokens of a request as computed, and the token they yield as pending."""
    start = request.num_computed_tokens
    stop = start + num_tokens
    samples = stop == request.num_tokens
    request.num_computed_tokens = stop
    request.num_pending += samples
    return ScheduledRequest(request, start, num_tokens, request.blocks.spans(-(-stop // block_size)), samples)
