"""Metrics of sequences: what is noted of each from its request to its end, and the histograms that it goes into.

::

    arrived ──queue──► scheduled ──prefill──► first token ──decode──► last token
       │                   └────────────── inference ─────────────────────┘
       ├── time to first token ───────────────────┘
       └── end to end ───────────────────────────────────────────────────► end

Names and bucket edges are those of vLLM's Prometheus logger; so is the meaning of each phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

from serving_image.engine.protocol import AddRequest, FinishReason, RequestOutput

FINISHED_REASONS: tuple[FinishReason, ...] = ("stop", "length", "abort", "error")
FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
NEXT_TOKEN_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
LATENCY_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
PARAMS_N_BUCKETS = (1, 2, 5, 10, 20)


def token_buckets(most: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50 … up to ``most``."""
    edges = (digit * 10**exponent for exponent in range(len(str(most))) for digit in (1, 2, 5))
    return tuple(edge for edge in edges if edge <= most)


class SequenceMetrics:
    """The metrics of an engine's sequences.

    :param labels: of every metric, with their values.
    :param max_model_len: most tokens of a sequence.
    """

    def __init__(self, registry: CollectorRegistry, labels: dict[str, str], max_model_len: int) -> None:
        names, values = tuple(labels), tuple(labels.values())

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, names, registry=registry, buckets=buckets).labels(*values)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, names, registry=registry).labels(*values)

        tokens = token_buckets(max_model_len)
        self.prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens processed.")
        self.generation_tokens = counter("vllm:generation_tokens", "Tokens generated.")
        self.request_prompt_tokens = histogram("vllm:request_prompt_tokens", "Prompt tokens of a sequence.", tokens)
        self.request_generation_tokens = histogram(
            "vllm:request_generation_tokens", "Tokens generated for a sequence.", tokens
        )
        self.request_max_num_generation_tokens = histogram(
            "vllm:request_max_num_generation_tokens", "Tokens of the longest answer to a prompt.", tokens
        )
        self.request_params_n = histogram("vllm:request_params_n", "Answers asked for to a prompt.", PARAMS_N_BUCKETS)
        self.request_params_max_tokens = histogram(
            "vllm:request_params_max_tokens", "Most tokens that a sequence might have generated.", tokens
        )
        self.time_to_first_token = histogram(
            "vllm:time_to_first_token_seconds", "From arrival to the first token.", FIRST_TOKEN_BUCKETS
        )
        self.inter_token_latency = histogram(
            "vllm:inter_token_latency_seconds", "Between tokens of a sequence.", NEXT_TOKEN_BUCKETS
        )
        self.request_time_per_output_token = histogram(
            "vllm:request_time_per_output_token_seconds",
            "Mean time between tokens of a finished sequence.",
            NEXT_TOKEN_BUCKETS,
        )
        self.e2e_request_latency = histogram(
            "vllm:e2e_request_latency_seconds", "From arrival to the end.", LATENCY_BUCKETS
        )
        self.request_prefill_time = histogram(
            "vllm:request_prefill_time_seconds", "From first being scheduled to the first token.", LATENCY_BUCKETS
        )
        self.request_decode_time = histogram(
            "vllm:request_decode_time_seconds", "From the first token to the last.", LATENCY_BUCKETS
        )
        self.request_inference_time = histogram(
            "vllm:request_inference_time_seconds", "From first being scheduled to the last token.", LATENCY_BUCKETS
        )
        success = Counter("vllm:request_success", "Sequences ended.", (*names, "finished_reason"), registry=registry)
        # All reasons from the start: a rate over a series that appears late misses its first event.
        self.request_success = {reason: success.labels(*values, reason) for reason in FINISHED_REASONS}

    def open(self, requests: Sequence[AddRequest], n: int, now: float) -> list[SequenceRecord]:
        """A record for each of ``requests``, which arrive ``now``: ``n`` in a row continue the same prompt."""
        siblings = [_Siblings(n) for _ in range(len(requests) // n)]
        for _ in siblings:
            self.request_params_n.observe(n)
        return [SequenceRecord(self, request, siblings[index // n], now) for index, request in enumerate(requests)]


@dataclass(slots=True)
class _Siblings:
    """The ``unfinished`` answers to one prompt, and the length of the longest one of the others."""

    unfinished: int
    longest: int = 0


class SequenceRecord:
    """One sequence's times and tokens; it observes each metric when it is known."""

    __slots__ = (
        "_arrived_at",
        "_ended_at",
        "_first_at",
        "_last_at",
        "_max_tokens",
        "_metrics",
        "_num_prompt_tokens",
        "_num_tokens",
        "_queue_seconds",
        "_siblings",
    )

    def __init__(self, metrics: SequenceMetrics, request: AddRequest, siblings: _Siblings, now: float) -> None:
        self._metrics = metrics
        self._siblings = siblings
        self._num_prompt_tokens = len(request.prompt_token_ids)
        self._max_tokens = request.sampling.max_tokens
        self._arrived_at = self._first_at = self._last_at = now
        self._ended_at: float | None = None
        self._num_tokens = 0
        self._queue_seconds = 0.0
        metrics.request_params_max_tokens.observe(self._max_tokens)

    def read(self, output: RequestOutput, now: float) -> None:
        """Take new tokens, or the end, that came ``now``. This runs for every token: two observations."""
        if output.finish_reason is not None:
            self._ended_at = now
        if not output.token_ids:
            return
        if self._num_tokens:
            self._metrics.inter_token_latency.observe(now - self._last_at)
        else:
            self._first_at = now
            self._queue_seconds = output.queue_seconds
            self._metrics.prompt_tokens.inc(self._num_prompt_tokens)
            self._metrics.time_to_first_token.observe(now - self._arrived_at)
        self._last_at = now
        self._num_tokens += len(output.token_ids)
        self._metrics.generation_tokens.inc(len(output.token_ids))

    def finish(self, reason: FinishReason, now: float) -> None:
        """The sequence has ended, ``now`` if the engine did not say so before; call it once."""
        metrics = self._metrics
        metrics.request_success[reason].inc()
        metrics.e2e_request_latency.observe((now if self._ended_at is None else self._ended_at) - self._arrived_at)
        metrics.request_prompt_tokens.observe(self._num_prompt_tokens)
        metrics.request_generation_tokens.observe(self._num_tokens)
        if self._num_tokens:
            self._observe_phases()
        siblings = self._siblings
        siblings.longest = max(siblings.longest, self._num_tokens)
        siblings.unfinished -= 1
        if not siblings.unfinished:
            metrics.request_max_num_generation_tokens.observe(siblings.longest)

    def _observe_phases(self) -> None:
        metrics = self._metrics
        decode = self._last_at - self._first_at
        inference = self._last_at - self._arrived_at - self._queue_seconds
        metrics.request_prefill_time.observe(inference - decode)
        metrics.request_decode_time.observe(decode)
        metrics.request_inference_time.observe(inference)
        if self._num_tokens > 1:
            metrics.request_time_per_output_token.observe(decode / (self._num_tokens - 1))
