"""Runs steps on the device, in a thread of its own, in the order of their launching."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from serving_image.engine.protocol import TokenLogprobs
from serving_image.engine.request import Request
from serving_image.engine.step import SampledToken, ScheduledRequest, StepResult
from serving_image.models.decoder import Decoder
from serving_image.models.interface import AttentionCache, Model
from serving_image.runtime.batch import model_input
from serving_image.runtime.decode_programs import DecodePrograms
from serving_image.runtime.failures import NOTHING_TO_CHOOSE, RAISED
from serving_image.runtime.sampler import SamplingRow, sample, token_logprobs

logger = logging.getLogger(__name__)

_ROWS_AT_A_TIME = 64
"""Prompt positions whose scores exist at once: over 32,000 tokens, 8 MB instead of 260 for a prompt of 2,048."""


class LaunchedStep:
    """A step that a :class:`Runner` computes or will compute."""

    def __init__(self, future: Future[StepResult]) -> None:
        self._future = future

    def wait(self, seconds: float) -> bool:
        """Wait at most this long for the step's end; whether it has ended."""
        return bool(wait((self._future,), timeout=seconds).done)

    def result(self) -> StepResult:
        """Wait for the step and read it."""
        return self._future.result()


class _Forward(NamedTuple):
    sampled: dict[Request, SampledToken | None]
    prompt_logprobs: dict[Request, list[TokenLogprobs]]


class Runner:
    """The model, its cache, and the thread in which they meet.

    Steps run one after another. What a step samples is in ``Request.device_tokens`` when the next one begins, so that
    one can be launched before anybody has read the first.
    """

    def __init__(self, model: Model, caches: Sequence[AttentionCache], max_model_len: int) -> None:
        self._model = model
        self._caches = caches
        self._decode = None
        if isinstance(model, Decoder):
            self._decode = DecodePrograms(model, caches, -(-max_model_len // caches[0].block_size))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="runner")
        self._failed: dict[Request, str] = {}

    @property
    def vocab_size(self) -> int:
        return self._model.config.vocab_size

    def launch(self, scheduled: Sequence[ScheduledRequest]) -> LaunchedStep:
        """Start computing and return at once."""
        return LaunchedStep(self._thread.submit(self._compute, list(scheduled)))

    def forget(self, requests: Sequence[Request]) -> None:
        """Nothing is kept of a request but what it holds itself."""

    def _compute(self, scheduled: list[ScheduledRequest]) -> StepResult:
        started = time.perf_counter()
        result = StepResult(failed={r: self._failed[r] for r, *_ in scheduled if r in self._failed})
        # A request that failed in the step before lacks the token that this one was to continue.
        self._run([item for item in scheduled if item.request not in self._failed], result)
        self._failed = result.failed
        result.seconds = time.perf_counter() - started
        return result

    def _run(self, items: list[ScheduledRequest], result: StepResult) -> None:
        """Compute ``items`` into ``result``. If that raises, each by itself, so that only the culprit fails."""
        if not items:
            return
        try:
            forward = self._forward(items)
        except Exception:
            if len(items) > 1:
                logger.exception("a step of %d requests failed; each is tried by itself", len(items))
                for item in items:
                    self._run([item], result)
            else:
                logger.exception("request %s failed", items[0].request.request_id)
                result.failed[items[0].request] = RAISED
            return
        result.prompt_logprobs.update(forward.prompt_logprobs)
        for request, token in forward.sampled.items():
            if token is None:
                result.failed[request] = NOTHING_TO_CHOOSE
            else:
                request.device_tokens.append(token.token_id)
                result.sampled[request] = token

    @torch.inference_mode()
    def _forward(self, items: list[ScheduledRequest]) -> _Forward:
        if self._decode is not None and self._decode.covers(items):
            hidden = self._decode.forward(items)
        else:
            inputs = model_input(items, self._caches[0].block_size, self._model.device)
            hidden = self._model.forward(inputs, self._caches)
        starts = [0, *accumulate(item.num_tokens for item in items)]
        prompt_logprobs = {
            item.request: self._prompt_logprobs(item, hidden[start : start + item.num_tokens])
            for item, start in zip(items, starts, strict=False)
            if item.request.sampling.prompt_logprobs is not None and item.start < item.request.num_prompt_tokens
        }
        last_rows = [end - 1 for item, end in zip(items, starts[1:], strict=True) if item.samples]
        if not last_rows:
            return _Forward({}, prompt_logprobs)
        # The output layer is a quarter of a small model's work, so only rows that are sampled go through it.
        logits = self._model.logits(hidden[torch.tensor(last_rows, device=hidden.device)])
        requests = [item.request for item in items if item.samples]
        rows = [SamplingRow(r.sampling, r.seed, r.device_tokens, r.num_prompt_tokens) for r in requests]
        return _Forward(dict(zip(requests, sample(logits, rows), strict=True)), prompt_logprobs)

    def _prompt_logprobs(self, item: ScheduledRequest, hidden: Tensor) -> list[TokenLogprobs]:
        """Those of the prompt tokens that follow the item's rows."""
        request = item.request
        following = request.device_tokens[item.start + 1 : min(item.start + len(hidden) + 1, request.num_prompt_tokens)]
        num_top = request.sampling.prompt_logprobs or 0
        logprobs: list[TokenLogprobs] = []
        for start in range(0, len(following), _ROWS_AT_A_TIME):
            part = slice(start, min(start + _ROWS_AT_A_TIME, len(following)))
            logprobs += token_logprobs(self._model.logits(hidden[part]), following[part], num_top)
        return logprobs
