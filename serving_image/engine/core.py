"""The engine's step: schedule → run → emit. It knows nothing of sockets or processes."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from serving_image.engine.kv_cache import BlockPool
from serving_image.engine.protocol import AddRequest, EngineStats, RequestOutput, StepOutput
from serving_image.engine.request import Request
from serving_image.engine.scheduler import ScheduledRequest, Scheduler

logger = logging.getLogger(__name__)


class StepRunner(Protocol):
    """What computes a step; :class:`serving_image.runtime.runner.Runner`."""

    @property
    def vocab_size(self) -> int: ...

    def run(self, scheduled: Sequence[ScheduledRequest], /) -> list[int]: ...


class EngineCore:
    """Live requests and the step that moves them on. No request's failure is another's."""

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
        self._max_model_len = max_model_len
        # Gives every request without a seed its own stream, so that a server started with --seed repeats itself.
        self._seeds = random.Random(seed)  # noqa: S311 (not for security)
        self._clock = clock
        self._live: dict[str, Request] = {}
        self._step = 0
        self._reported_leak = 0

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    def add(self, message: AddRequest) -> RequestOutput | None:
        """Queue a request; an output only if it is refused, which ends it."""
        request_id = message.request_id
        if request_id in self._live:
            # An answer would be taken for the live request's end.
            logger.error("request id %s is in use; the second request is ignored", request_id)
            return None
        problem = self._problem(message)
        if problem is not None:
            return RequestOutput(request_id, [], "error", problem)
        sampling = message.sampling
        request = Request(
            request_id=request_id,
            tokens=list(message.prompt_token_ids),
            num_prompt_tokens=len(message.prompt_token_ids),
            sampling=sampling,
            seed=self._seeds.getrandbits(63) if sampling.seed is None else sampling.seed,
            max_length=min(self._max_model_len, len(message.prompt_token_ids) + sampling.max_tokens),
        )
        self._live[request_id] = request
        self._scheduler.add(request)
        return None

    def abort(self, request_ids: Iterable[str]) -> list[RequestOutput]:
        """End requests before their time; ids that are not live are ignored."""
        aborted = [self._live[request_id] for request_id in request_ids if request_id in self._live]
        self._forget(aborted)
        return [RequestOutput(request.request_id, [], "abort") for request in aborted]

    def step(self) -> StepOutput:
        """Run one step.

        If it raises, the requests in it end with an error and the others go on: their state is not touched before the
        step has succeeded.
        """
        started = self._clock()
        scheduled = self._scheduler.schedule()
        self._step += 1
        try:
            sampled = self._runner.run(scheduled)
        except Exception:
            logger.exception("step %d failed with %d requests in it", self._step, len(scheduled))
            outputs = self._fail([item.request for item in scheduled])
        else:
            self._scheduler.advance(scheduled)
            outputs = self._collect([item.request for item in scheduled if item.samples], sampled)
        batch_tokens = sum(item.num_tokens for item in scheduled)
        return StepOutput(outputs, self.stats(batch_tokens, self._clock() - started))

    def stats(self, batch_tokens: int = 0, step_seconds: float = 0.0) -> EngineStats:
        """The state now; without arguments, that of an idle engine."""
        return EngineStats(
            step=self._step,
            num_running=self._scheduler.num_running,
            num_waiting=self._scheduler.num_waiting,
            num_free_blocks=self._pool.num_free,
            num_total_blocks=self._pool.num_blocks,
            num_preemptions=self._scheduler.num_preemptions,
            batch_tokens=batch_tokens,
            step_seconds=step_seconds,
        )

    def _problem(self, message: AddRequest) -> str | None:
        """Why a request can never run; None if it can."""
        prompt = message.prompt_token_ids
        if not prompt:
            return "The prompt is empty."
        if len(prompt) >= self._max_model_len:
            return (
                f"The prompt has {len(prompt)} tokens, but prompt and answer together may have {self._max_model_len}. "
                "Shorten the prompt."
            )
        if min(prompt) < 0 or max(prompt) >= self._runner.vocab_size:
            return f"The prompt has a token id outside 0 … {self._runner.vocab_size - 1}."
        if message.sampling.max_tokens < 1:
            return "max_tokens must be at least 1."
        return None

    def _collect(self, requests: list[Request], sampled: list[int]) -> list[RequestOutput]:
        outputs = []
        finished = []
        for request, token in zip(requests, sampled, strict=True):
            request.tokens.append(token)
            reason = request.finish_reason
            if reason is not None:
                finished.append(request)
            outputs.append(RequestOutput(request.request_id, [token], reason))
        self._forget(finished)
        return outputs

    def _fail(self, requests: list[Request]) -> list[RequestOutput]:
        self._forget(requests)
        problem = "The engine failed while computing this request; its log says why. Other requests go on."
        return [RequestOutput(request.request_id, [], "error", problem) for request in requests]

    def _forget(self, requests: list[Request]) -> None:
        if not requests:
            return
        self._scheduler.remove(requests)
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
