"""Prometheus metrics, under vLLM's names so that its dashboards work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from serving_image.engine.protocol import AddRequest, EngineReady, EngineStats
from serving_image.server.sequence_metrics import LATENCY_BUCKETS, SequenceMetrics, SequenceRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STEP_TOKENS_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def _kv_cache_usage(stats: EngineStats) -> float:
    return 1 - stats.num_free_blocks / stats.num_total_blocks if stats.num_total_blocks else 0.0


#: Name, help and value of what the engine counts itself; each is read from its last word when somebody asks.
_Figure = tuple[str, str, Callable[[EngineStats], float]]
GAUGES: tuple[_Figure, ...] = (
    ("vllm:num_requests_running", "Sequences in the running batch.", lambda stats: stats.num_running),
    ("vllm:num_requests_waiting", "Sequences waiting to be scheduled.", lambda stats: stats.num_waiting),
    ("vllm:kv_cache_usage_perc", "Share of KV cache blocks in use; 1 is all.", _kv_cache_usage),
)
COUNTERS: tuple[_Figure, ...] = (
    ("vllm:prefix_cache_queries", "Prompt tokens looked up in the cache.", lambda stats: stats.prefix_cache_queries),
    ("vllm:prefix_cache_hits", "Prompt tokens found in the cache.", lambda stats: stats.prefix_cache_hits),
    ("vllm:num_preemptions", "Sequences put back to wait for memory.", lambda stats: stats.num_preemptions),
)
_BEFORE_THE_FIRST_STEP = EngineStats(
    step=0,
    num_running=0,
    num_waiting=0,
    num_free_blocks=0,
    num_total_blocks=0,
    num_preemptions=0,
    batch_tokens=0,
    step_seconds=0.0,
)


class Metrics:
    """The metrics of one served model; those of vLLM carry its labels ``model_name`` and ``engine``.

    :param engine_pid: the engine's process, whose memory and open files are reported beside this process's.
    """

    def __init__(self, model_name: str, engine_pid: int) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._labels = {"model_name": model_name, "engine": "0"}
        self._registry = registry = CollectorRegistry()
        GCCollector(registry)
        PlatformCollector(registry)
        ProcessCollector(registry=registry)
        ProcessCollector(namespace="slipway_engine", pid=lambda: engine_pid, registry=registry)
        Gauge("slipway:server_tasks", "Tasks of the server's event loop.", registry=registry).set_function(_num_tasks)
        self._engine = _EngineCollector(self._labels)
        registry.register(self._engine)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            family = Histogram(name, text, tuple(self._labels), registry=registry, buckets=buckets)
            return family.labels(*self._labels.values())

        self._step_tokens = histogram("vllm:iteration_tokens_total", "Tokens that a step ran.", STEP_TOKENS_BUCKETS)
        self._queue_time = histogram(
            "vllm:request_queue_time_seconds", "From arrival to first being scheduled.", LATENCY_BUCKETS
        )
        self._sequences: SequenceMetrics | None = None

    def engine_ready(self, ready: EngineReady) -> None:
        """Add what depends on the engine's configuration; call it once."""
        cache = {
            "engine": self._labels["engine"],
            "block_size": str(ready.block_size),
            "num_gpu_blocks": str(ready.num_blocks),
            "cache_dtype": ready.dtype,
        }
        info = Gauge("vllm:cache_config_info", "The KV cache's configuration.", tuple(cache), registry=self._registry)
        info.labels(*cache.values()).set(1)
        self._sequences = SequenceMetrics(self._registry, self._labels, ready.max_model_len)

    def engine_spoke(self, stats: EngineStats) -> None:
        """Take the engine's state after a step, or, with 0 ``batch_tokens``, between steps."""
        self._engine.stats = stats
        if stats.batch_tokens:
            self._step_tokens.observe(stats.batch_tokens)
        for seconds in stats.queue_seconds:
            self._queue_time.observe(seconds)

    def open(self, requests: Sequence[AddRequest], n: int, now: float) -> list[SequenceRecord]:
        """A record for each of ``requests``, which arrive ``now``: ``n`` in a row continue the same prompt.

        :raises RuntimeError: the engine is not ready.
        """
        if self._sequences is None:
            raise RuntimeError("requests were submitted before the engine was ready")
        return self._sequences.open(requests, n, now)

    def render(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """What the engine counts itself, so that a step costs the server nothing for it."""

    def __init__(self, labels: dict[str, str]) -> None:
        self._labels = labels
        self.stats = _BEFORE_THE_FIRST_STEP

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        names, values = tuple(self._labels), tuple(self._labels.values())
        for name, text, value in GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=names)
            gauge.add_metric(values, value(self.stats))
            yield gauge
        for name, text, value in COUNTERS:
            counter = CounterMetricFamily(name, text, labels=names)
            counter.add_metric(values, value(self.stats))
            yield counter


def _num_tasks() -> float:
    return len(asyncio.all_tasks())
