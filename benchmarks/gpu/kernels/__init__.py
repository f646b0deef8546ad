"""The kernels' figures: each beside the least bytes and operations that it can cost, and beside others' kernels."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.kernels import attention, latent, linear, moe, sampling, streams

_GROUPS: tuple[Callable[[Bench], None], ...] = (
    attention.decode,
    attention.prefill,
    streams.measure,
    sampling.measure,
    linear.measure,
    moe.measure,
    latent.measure,
)


def measure(bench: Bench) -> None:
    """All of them, those that the targets are about first.

    :raises RuntimeError: after all others: inputs of some could not be made.
    """
    failures = []
    for group in _GROUPS:
        try:
            group(bench)
        except Exception as error:
            failures.append(f"{group.__module__}: {type(error).__name__}: {str(error)[:300]}")
            bench.say(failures[-1])
    if failures:
        raise RuntimeError("; ".join(failures))
