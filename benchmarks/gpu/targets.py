"""What is wanted of the figures: the rows of the issue that asked for the GPU path, one target each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.gpu.results import Ceilings, Figure

_LARGE = 256 * 10**6
"""Bytes from which a decode is held against the copy's bandwidth: smaller ones end before all multiprocessors read."""
GATHERED = "SDPA over gathered pages"
FLASHINFER = "FlashInfer"
ONE_BY_ONE = "Transformers, one by one (extrapolated from two answers)"
CONTINUOUS = "Transformers, continuous batching (120 s: stopped, so at least that)"

Value = Callable[[Figure, Ceilings], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    """``value`` of every figure of ``row``, where it has one, is to be at least ``bound``, or at most.

    :ivar text: the target in words.
    :ivar unit: what the value is in: ``%``, ``×``, ``TFLOP/s``, ``µs`` or ``s``.
    """

    row: str
    text: str
    unit: str
    bound: float
    at_least: bool
    value: Value

    def values(self, figures: Sequence[Figure], ceilings: Ceilings) -> list[float]:
        """Of the figures that have one."""
        found = (self.value(figure, ceilings) for figure in figures if figure.row == self.row)
        return [value for value in found if value is not None]

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


def of_copy(figure: Figure, ceilings: Ceilings) -> float:
    """Share of the copy's bandwidth."""
    return figure.bytes / figure.seconds / ceilings.copy


def _large_of_copy(figure: Figure, ceilings: Ceilings) -> float | None:
    return of_copy(figure, ceilings) if figure.bytes >= _LARGE else None


def times_faster(figure: Figure, *peers: str) -> float | None:
    """Than the fastest of these peers; None if none was measured."""
    measured = [figure.peers[peer] for peer in peers if peer in figure.peers]
    return min(measured) / figure.seconds if measured else None


def _gathered(figure: Figure, _ceilings: Ceilings) -> float | None:
    return None if FLASHINFER in figure.peers else times_faster(figure, GATHERED)


def _step(figure: Figure, _ceilings: Ceilings) -> float | None:
    step, floor = (figure.values.get(name) for name in ("decode_step_s", "decode_step_floor_s"))
    return step / floor if step and floor else None


def _truncated(figure: Figure, _ceilings: Ceilings) -> float | None:
    return figure.seconds * 1e6 if figure.case == "batch 256, top-k 50, top-p 0.9" else None


def _fused(figure: Figure, ceilings: Ceilings) -> float | None:
    return of_copy(figure, ceilings) if figure.case != "embedding" else None


TARGETS = (
    Target("decode_attention", "≥ 90 % of the copy's bandwidth from 256 MB", "%", 0.9, True, _large_of_copy),
    Target("decode_attention", "≥ FlashInfer", "×", 1.0, True, lambda figure, _: times_faster(figure, FLASHINFER)),
    Target("decode_attention", "≥ 1.5 × SDPA over gathered pages, without FlashInfer", "×", 1.5, True, _gathered),
    Target("prefill_attention", "≥ 500 TFLOP/s", "TFLOP/s", 500, True, lambda f, _: f.operations / f.seconds / 1e12),
    Target(
        "prefill_attention",
        "≥ 0.95 × SDPA on contiguous tensors",
        "×",
        0.95,
        True,
        lambda figure, _: times_faster(figure, "SDPA, cuDNN", "SDPA, flash"),
    ),
    Target("one_request", "≥ 85 % of bytes ÷ copy's bandwidth", "%", 0.85, True, of_copy),
    Target("many_requests", "≥ 24 × one by one", "×", 24, True, lambda figure, _: times_faster(figure, ONE_BY_ONE)),
    Target(
        "many_requests", "≥ 3 × continuous batching", "×", 3, True, lambda figure, _: times_faster(figure, CONTINUOUS)
    ),
    Target("many_requests", "step ≤ 1.25 × its kernels' floors", "×", 1.25, False, _step),
    Target("fused", "≥ 85 % of the copy's bandwidth", "%", 0.85, True, _fused),
    Target("sampler", "≤ 250 µs with top-k and top-p", "µs", 250, False, _truncated),
    Target("idle", "≤ 5 % of the step", "%", 0.05, False, lambda figure, _: figure.values.get("idle_share")),
    Target("start", "≤ 20 s", "s", 20, False, lambda figure, _: figure.seconds),
)

TITLES = {
    "decode_attention": "Decode attention, bfloat16, 32 query and 8 KV heads of 128",
    "prefill_attention": "Prefill attention, causal, 32 query and 8 KV heads of 128",
    "one_request": "Llama 3 8B's shape, one request",
    "many_requests": "Llama 3 8B's shape, 256 requests",
    "fused": "Fused passes over 8,192 tokens",
    "sampler": "Sampler, vocabulary of 128,256",
    "idle": "GPU idle between decode steps",
    "start": "Start to first token",
    "processing": "Penalties, vocabulary of 128,256",
    "logprobs": "Log-probabilities, vocabulary of 128,256",
    "few_rows": "Products of few rows, Llama 3 8B",
    "moe": "Mixtures of experts, one layer",
    "latent_attention": "Latent attention, decoding",
}
"""The rows of the issue, then ours, which have no target."""
