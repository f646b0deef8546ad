"""Prometheus metrics, under vLLM's names so that its dashboards work."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from serving_image.engine.protocol import EngineStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_BUCKETS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0)
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0),
)
_NEXT_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
FINISHED_REASONS = ("stop", "length", "abort", "error")


class Metrics:
    """The metrics of one served model; every one carries the label ``model_name``.

    :param stats: the engine's state after its last step, or None before the first.
    """

    def __init__(self, model_name: str, stats: Callable[[], EngineStats | None]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        label, names = (model_name,), ("model_name",)

        def gauge(name: str, text: str, value: Callable[[EngineStats], float]) -> None:
            def current() -> float:
                now = stats()
                return 0.0 if now is None else value(now)

            Gauge(name, text, names, registry=registry).labels(*label).set_function(current)

        gauge("vllm:num_requests_running", "Sequences in the running batch.", lambda s: s.num_running)
        gauge("vllm:num_requests_waiting", "Sequences waiting to be scheduled.", lambda s: s.num_waiting)
        gauge("vllm:kv_cache_usage_perc", "Share of KV cache blocks in use; 1 is all.", _kv_cache_usage)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, names, registry=registry).labels(*label)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, names, registry=registry, buckets=buckets).labels(*label)

        self._prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens processed.")
        self._generation_tokens = counter("vllm:generation_tokens", "Tokens generated.")
        self._first_token = histogram(
            "vllm:time_to_first_token_seconds", "From acceptance to the first token.", _FIRST_TOKEN_BUCKETS
        )
        self._next_token = histogram(
            "vllm:inter_token_latency_seconds", "Between tokens of a sequence.", _NEXT_TOKEN_BUCKETS
        )
        self._end_to_end = histogram(
            "vllm:e2e_request_latency_seconds", "From acceptance to the last token.", _LATENCY_BUCKETS
        )
        success = Counter(
            "vllm:request_success", "Sequences ended, by reason.", (*names, "finished_reason"), registry=registry
        )
        # All reasons from the start: a rate over a series that appears late misses its first event.
        self._finished = {reason: success.labels(model_name, reason) for reason in FINISHED_REASONS}

    def first_token(self, num_prompt_tokens: int, seconds: float) -> None:
        """A sequence's first token came ``seconds`` after its request was accepted."""
        self._prompt_tokens.inc(num_prompt_tokens)
        self._first_token.observe(seconds)

    def next_token(self, seconds: float) -> None:
        """A further token came ``seconds`` after the one before it."""
        self._next_token.observe(seconds)

    def generated(self, num_tokens: int) -> None:
        self._generation_tokens.inc(num_tokens)

    def finished(self, reason: str, seconds: float) -> None:
        """A sequence ended, ``seconds`` after its request was accepted."""
        self._finished[reason].inc()
        self._end_to_end.observe(seconds)

    def aborted(self, num_sequences: int) -> None:
        """The client went away from this many unfinished sequences."""
        self._finished["abort"].inc(num_sequences)

    def render(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self._registry)


def _kv_cache_usage(stats: EngineStats) -> float:
    return 1 - stats.num_free_blocks / stats.num_total_blocks
