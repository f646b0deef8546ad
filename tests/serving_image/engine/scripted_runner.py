"""A device that computes with hashes: a request's next token depends on every value its block tables lead to.

It has one layer for each group of the cache, and what a layer keeps of a position is a hash of what goes into the layer
there. What comes out depends on all that is kept in the layer's window, read from the cache. So a block that was lost,
shared wrongly or overwritten too early changes the tokens, which :func:`expected_tokens` knows without any cache.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import blake2b

from serving_image.engine.block_demand import BlockDemand
from serving_image.engine.block_pool import BlockPool
from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import AddRequest, SamplingParams, TokenLogprobs
from serving_image.engine.request import Request
from serving_image.engine.scheduler import Scheduler
from serving_image.engine.step import SampledToken, ScheduledRequest, StepResult

VOCAB_SIZE = 50
BLOCK = 4
UNWRITTEN = -1
Windows = tuple[int | None, ...]


def _hash(*values: int) -> int:
    return int.from_bytes(blake2b(repr(values).encode(), digest_size=6).digest(), "big")


def _seen(position: int, window: int | None) -> range:
    return range(0 if window is None else max(0, position - window + 1), position + 1)


def expected_tokens(
    prompt: Sequence[int], max_tokens: int, stop: frozenset[int] = frozenset(), windows: Windows = (None,)
) -> list[int]:
    """What the device yields for a request, without a cache, blocks or steps."""
    kept: list[list[int]] = [[] for _ in windows]
    tokens = list(prompt)
    for position, token in enumerate(tokens):
        x = token
        for layer, window in zip(kept, windows, strict=True):
            layer.append(_hash(position, x))
            x = _hash(x, sum(layer[i] for i in _seen(position, window)))
        if position == len(tokens) - 1 and len(tokens) < len(prompt) + max_tokens:
            tokens.append(x % VOCAB_SIZE)
            if tokens[-1] in stop:
                break
    return tokens[len(prompt) :]


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class ScriptedStep:
    """A launched step. It computes when it is read, as late as can be, unless it was told to be quick."""

    def __init__(self, runner: ScriptedRunner, number: int, items: list[ScheduledRequest]) -> None:
        self._runner = runner
        self._number = number
        self._items = items
        self._result: StepResult | None = None

    def wait(self, seconds: float) -> bool:
        if self._runner.waits_before_end > 0:
            self._runner.waits_before_end -= 1
            self._runner.clock.now += seconds
            return False
        return True

    def compute(self) -> None:
        if self._result is None:
            self._result = self._runner.compute(self._items)

    def result(self) -> StepResult:
        assert self._runner.log[-1] != ("read", self._number), "a step is read once"
        assert ("read", self._number - 1) in self._runner.log or self._number == 1, "steps are read in order"
        if self._runner.lost is not None:
            raise self._runner.lost
        self._runner.log.append(("read", self._number))
        self.compute()
        assert self._result is not None
        return self._result


class ScriptedRunner:
    """``log`` has ("launch", n) and ("read", n) as they happened and ``steps`` what was launched.

    ``fails`` says which items raise an error. ``waits_before_end`` is how often a wait ends before the step does.
    ``quick``, fixed for its life, computes steps when they are launched. ``forgotten`` are the requests it was told of.
    """

    vocab_size = VOCAB_SIZE

    def __init__(self, num_blocks: int, clock: Clock, windows: Windows = (None,)) -> None:
        self.clock = clock
        self.windows = windows
        self.log: list[tuple[str, int]] = []
        self.steps: list[list[ScheduledRequest]] = []
        self.fails: Callable[[ScheduledRequest], bool] = lambda _: False
        self.forgotten: list[Request] = []
        self.lost: Exception | None = None
        self.waits_before_end = 0
        self.quick = False
        self._cache: list[int] = [UNWRITTEN] * (num_blocks * BLOCK)

    def launch(self, scheduled: Sequence[ScheduledRequest]) -> ScriptedStep:
        self.steps.append(list(scheduled))
        self.log.append(("launch", len(self.steps)))
        step = ScriptedStep(self, len(self.steps), list(scheduled))
        if self.quick:
            step.compute()
        return step

    def forget(self, requests: Sequence[Request]) -> None:
        self.forgotten += requests

    def compute(self, items: list[ScheduledRequest]) -> StepResult:
        result = StepResult(seconds=0.25)
        for item in items:
            request = item.request
            if self.fails(item):
                result.failed[request] = "The device failed."
                continue
            result_of_last = self._forward(item)
            if item.samples:
                token = result_of_last % VOCAB_SIZE
                request.device_tokens.append(token)
                logprobs = None if request.sampling.logprobs is None else TokenLogprobs(token, -1.0, 1, [], [])
                result.sampled[request] = SampledToken(token, logprobs)
            if request.sampling.prompt_logprobs is not None:
                result.prompt_logprobs[request] = _prompt_logprobs(item)
        return result

    def _forward(self, item: ScheduledRequest) -> int:
        """Fill the cache layer by layer; what comes out at the item's last position."""
        stop = item.start + item.num_tokens
        xs = item.request.device_tokens[item.start : stop]
        for group, window in enumerate(self.windows):
            span = item.blocks[group]
            assert span.first + len(span.blocks) == -(-stop // BLOCK)
            for position, x in enumerate(xs, item.start):
                self._cache[self._slot(item, group, position)] = _hash(position, x)
            for position, x in enumerate(xs, item.start):
                seen = [self._cache[self._slot(item, group, index)] for index in _seen(position, window)]
                assert UNWRITTEN not in seen, "read before it was written"
                xs[position - item.start] = _hash(x, sum(seen))
        return xs[-1]

    @staticmethod
    def _slot(item: ScheduledRequest, group: int, position: int) -> int:
        first, blocks = item.blocks[group]
        assert position // BLOCK >= first, "read outside what the request holds"
        return blocks[position // BLOCK - first] * BLOCK + position % BLOCK


def _prompt_logprobs(item: ScheduledRequest) -> list[TokenLogprobs]:
    """Says which token it is about; its "log-probability" is minus its position."""
    request = item.request
    last = min(item.start + item.num_tokens, request.num_prompt_tokens - 1)
    return [TokenLogprobs(request.tokens[p + 1], -(p + 1.0), 1, [], []) for p in range(item.start, last)]


class ScriptedEngine:
    """A real core, scheduler and pool over a scripted device."""

    def __init__(
        self,
        *,
        num_blocks: int = 64,
        max_num_seqs: int = 8,
        budget: int = 16,
        max_model_len: int = 128,
        enable_prefix_caching: bool = True,
        windows: Windows = (None,),
    ) -> None:
        self.clock = Clock()
        self.runner = ScriptedRunner(num_blocks, self.clock, windows)
        demand = BlockDemand(BLOCK, windows, budget)
        self.pool = BlockPool(num_blocks, demand, enable_prefix_caching=enable_prefix_caching)
        self.core = EngineCore(
            runner=self.runner,
            pool=self.pool,
            scheduler=Scheduler(self.pool, max_num_seqs, budget),
            max_model_len=max_model_len,
            seed=0,
            clock=self.clock,
        )

    def check_idle(self) -> None:
        """Nothing is live, and every block is free."""
        stats = self.core.stats()
        assert not self.core.has_work
        assert (stats.num_running, stats.num_waiting) == (0, 0)
        assert (self.pool.num_free, self.pool.num_held) == (self.pool.num_blocks, 0)


def ask(
    name: str,
    prompt: Sequence[int],
    max_tokens: int,
    *,
    priority: int = 0,
    cache_salt: str | None = None,
    **sampling: object,
) -> AddRequest:
    params = SamplingParams(temperature=0, max_tokens=max_tokens, **sampling)  # type: ignore[arg-type]
    return AddRequest(
        request_id=name, prompt_token_ids=list(prompt), sampling=params, priority=priority, cache_salt=cache_salt
    )


def make_request(name: str, prompt: int | Sequence[int], output: int, *, priority: int = 0, **more: object) -> Request:
    """A request as the core makes it, of so many tokens or of these."""
    tokens = list(range(prompt)) if isinstance(prompt, int) else list(prompt)
    return Request(
        request_id=name,
        tokens=tokens,
        num_prompt_tokens=len(tokens),
        sampling=SamplingParams(max_tokens=output),
        seed=0,
        max_length=len(tokens) + output,
        priority=priority,
        **more,  # type: ignore[arg-type]
    )


def random_prompt(length: int, seed: int = 0) -> list[int]:
    """Tokens that follow from the arguments."""
    generator = random.Random(f"{length} {seed}")  # noqa: S311 (not for security)
    return generator.choices(range(VOCAB_SIZE), k=length)
