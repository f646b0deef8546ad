"""The kernels' figures: each beside the least bytes and operations that it can cost, and beside others' kernels."""

from __future__ import annotations

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.kernels import attention, latent, linear, moe, sampling, streams


def measure(bench: Bench) -> None:
    """All of them, those that the targets are about first."""
    attention.decode(bench)
    attention.prefill(bench)
    streams.measure(bench)
    sampling.measure(bench)
    linear.measure(bench)
    moe.measure(bench)
    latent.measure(bench)
