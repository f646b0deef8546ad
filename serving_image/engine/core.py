"""The engine's step: schedule → launch → read the step before → emit. It knows nothing of sockets or processes."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from serving_image.engine.block_pool import BlockPool
from serving_image.engine.protocol import AddRequest, EngineStats, RequestOutput, StepOutput
from serving_image.engine.request import Request
from serving_image.engine.scheduler import Schedule, Scheduler
from serving_image.engine.step import PendingStep, SampledToken, ScheduledRequest, StepResult, StepRunner
from serving_image.engine.validation import EngineLimits, problem

logger = logging.getLogger(__name__)

_MAX_LAUNCHED = 2
"""One that runs and one that follows it without a gap. The scheduler relies on there being no more."""


class _Launched(NamedTuple):
    schedule: Schedule
    pending: PendingStep


class EngineCore:
    """Live requests and the steps that move them on. No request's failure is another's.

    ::

        step()    schedule 1 ─ launch 1
        step()    schedule 2 ─ launch 2 ─ read 1 ─► tokens of 1
        step()    schedule 3 ─ launch 3 ─ read 2 ─► tokens of 2

    Step 2 is scheduled before the tokens of step 1 are known. They count as pending, and a request that turns out to
    have ended with one of them has run once too often: what that yields is dropped.
    """

    def __init__(
        self,
        *,
        runner: StepRunner,
        pool: BlockPool,
        scheduler: Scheduler,
        max_model_len: int,
        seed: int,
        clock: Callable[[], float],
    ) -> None:
        self._runner = runner
        self._pool = pool
        self._scheduler = scheduler
        self._limits = EngineLimits(
            runner.vocab_size, max_model_len, pool.demand.longest(pool.num_blocks, max_model_len)
        )
        # Gives every request without a seed its own stream, so that a server started with --seed repeats itself.
        self._seeds = random.Random(seed)  # noqa: S311 (not for security)
        self._clock = clock
        self._live: dict[str, Request] = {}
        self._launched: deque[_Launched] = deque()
        self._step = 0
        self._reported_leak = 0
        self._last_progress = clock()

    @property
    def has_work(self) -> bool:
        """Whether a request is live or a launched step has yet to be read."""
        return bool(self._live or self._launched)

    @property
    def last_progress(self) -> float:
        """When a step was last read, or work came after there was none. Long ago while :attr:`has_work`: a hang."""
        return self._last_progress

    def add(self, message: AddRequest) -> RequestOutput | None:
        """Queue a request; an output only if it is refused, which ends it."""
        request_id = message.request_id
        if request_id in self._live:
            # An answer would be taken for the live request's end.
            logger.error("request id %s is in use; the second request is ignored", request_id)
            return None
        refusal = problem(message, self._limits)
        if refusal is not None:
            return RequestOutput(request_id, [], "error", refusal)
        sampling, prompt = message.sampling, message.prompt_token_ids
        now = self._clock()
        request = Request(
            request_id=request_id,
            tokens=list(prompt),
            num_prompt_tokens=len(prompt),
            sampling=sampling,
            seed=self._seeds.getrandbits(63) if sampling.seed is None else sampling.seed,
            max_length=min(self._limits.max_model_len, len(prompt) + sampling.max_tokens),
            priority=message.priority,
            cache_salt=message.cache_salt,
            arrived_at=now,
        )
        if not self.has_work:
            self._last_progress = now  # before there is work: another thread may look in between
        self._live[request_id] = request
        self._scheduler.add(request)
        return None

    def abort(self, request_ids: Iterable[str]) -> list[RequestOutput]:
        """End requests before their time; ids that are not live are ignored."""
        aborted = [self._live[request_id] for request_id in dict.fromkeys(request_ids) if request_id in self._live]
        self._forget(aborted)
        return [RequestOutput(request.request_id, [], "abort") for request in aborted]

    def step(self, max_wait: float | None = None) -> StepOutput:
        """Launch the next step, if there is work for one, and read the one before it.

        Requests whose computation failed end with an error and the others go on.

        :param max_wait: return without outputs if that step does not end within so many seconds; the next call waits
            on. None waits for as long as it takes.
        :raises Exception: what the runner raises if the device is lost for good.
        """
        launched = len(self._launched) < _MAX_LAUNCHED and self._launch()
        if not self._launched or (launched and len(self._launched) == 1):
            return StepOutput([], self.stats())
        if max_wait is not None and not self._launched[0].pending.wait(max_wait):
            return StepOutput([], self.stats())
        schedule, pending = self._launched[0]
        result = pending.result()
        self._launched.popleft()
        self._step += 1
        self._last_progress = self._clock()
        outputs = self._collect(schedule.items, result)
        batch_tokens = sum(item.num_tokens for item in schedule.items)
        return StepOutput(outputs, self.stats(batch_tokens, result.seconds, schedule.queue_seconds))

    def stats(
        self, batch_tokens: int = 0, step_seconds: float = 0.0, queue_seconds: list[float] | None = None
    ) -> EngineStats:
        """The state now; the arguments describe a step that was just read, if there is one."""
        return EngineStats(
            step=self._step,
            num_running=self._scheduler.num_running,
            num_waiting=self._scheduler.num_waiting,
            num_free_blocks=self._pool.num_free,
            num_total_blocks=self._pool.num_blocks,
            num_preemptions=self._scheduler.num_preemptions,
            batch_tokens=batch_tokens,
            step_seconds=step_seconds,
            prefix_cache_queries=self._scheduler.prefix_cache_queries,
            prefix_cache_hits=self._scheduler.prefix_cache_hits,
            queue_seconds=queue_seconds or [],
            seconds_without_progress=self._clock() - self._last_progress if self.has_work else 0.0,
        )

    def _launch(self) -> bool:
        """Launch a step; False if there is nothing to compute."""
        if not self._live:
            return False
        schedule = self._scheduler.schedule(self._clock())
        if schedule.items:
            self._launched.append(_Launched(schedule, self._runner.launch(schedule.items)))
        return bool(schedule.items)

    def _collect(self, items: Iterable[ScheduledRequest], result: StepResult) -> list[RequestOutput]:
        """Take what a step yielded into the requests that are still live, and say what is new."""
        outputs: list[RequestOutput] = []
        ended: list[Request] = []
        for item in items:
            request = item.request
            if self._live.get(request.request_id) is not request:
                continue  # it has ended since
            if request in result.failed:
                outputs.append(RequestOutput(request.request_id, [], "error", result.failed[request]))
                ended.append(request)
                continue
            self._take_prompt_logprobs(item, result)
            self._pool.register(request.blocks, request.tokens, item.start + item.num_tokens)
            if item.samples:
                output = _extend(request, result.sampled[request])
                outputs.append(output)
                if output.finish_reason is not None:
                    ended.append(request)
        self._forget(ended)
        return outputs

    @staticmethod
    def _take_prompt_logprobs(item: ScheduledRequest, result: StepResult) -> None:
        chunk = result.prompt_logprobs.get(item.request)
        if chunk is not None:
            known = item.request.prompt_logprobs
            known += chunk[len(known) - item.start :]  # a preempted request computes some again

    def _forget(self, requests: list[Request]) -> None:
        if not requests:
            return
        self._scheduler.remove(requests)
        self._runner.forget(requests)
        for request in requests:
            del self._live[request.request_id]
        if not self._live:
            self._check_for_leak()

    def _check_for_leak(self) -> None:
        """Idle, every block must be free; a leak is reported once for each block lost."""
        leaked = self._pool.num_blocks - self._pool.num_free
        if leaked > self._reported_leak:
            logger.error("%d of %d key/value blocks are held by no request", leaked, self._pool.num_blocks)
        self._reported_leak = leaked


def _extend(request: Request, sampled: SampledToken) -> RequestOutput:
    """Append a token that was pending to its request."""
    request.tokens.append(sampled.token_id)
    request.num_pending -= 1
    first = request.num_output_tokens == 1
    wants_prompt_logprobs = first and request.sampling.prompt_logprobs is not None
    return RequestOutput(
        request.request_id,
        [sampled.token_id],
        request.finish_reason,
        num_cached_tokens=request.num_cached_tokens if first else 0,
        logprobs=None if sampled.logprobs is None else [sampled.logprobs],
        prompt_logprobs=request.prompt_logprobs if wants_prompt_logprobs else None,
        queue_seconds=(request.queue_seconds or 0.0) if first else 0.0,
    )
