#!/usr/bin/env python3
"""What windows, softcaps, ALiBi and sinks cost on a CPU, beside plain attention over the same tokens.

    .venv/bin/python benchmarks/attention_variants.py [--repeats N]

The compiled kernels alone, one layer of 32 query heads and 8 KV heads of 128 in bfloat16. The variants take turns, so
that what else the machine does meets all of them. Writes benchmarks/results/attention_variants.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS.parent)]

import torch  # noqa: E402

from kernels.attention import PLAIN, AttentionVariant, LayerCache, PagedBatch, native  # noqa: E402
from kernels.native import library  # noqa: E402

RESULTS = BENCHMARKS / "results"
HEADS, KV_HEADS, HEAD_DIM, BLOCK_SIZE = 32, 8, 128, 32
LEAST_SECONDS = 0.02
"""Calls are repeated for so long to give one figure."""


class Load(NamedTuple):
    """``sequences`` of so many query tokens each at the end of a context."""

    sequences: int
    queries: int
    context: int

    def __str__(self) -> str:
        what = "decode" if self.queries == 1 else f"{self.queries}-token chunk"
        return f"{self.sequences} × {what}, context {self.context:,}"


LOADS = (Load(1, 1, 2048), Load(16, 1, 2048), Load(1, 1, 32768), Load(1, 512, 512), Load(1, 512, 8192))


def variants() -> dict[str, AttentionVariant]:
    """By their names in the table, plain first."""
    per_head = torch.rand(HEADS, generator=torch.Generator().manual_seed(0))
    return {
        "plain": PLAIN,
        "window 128": AttentionVariant(window=128),
        "window 1024": AttentionVariant(window=1024),
        "softcap": AttentionVariant(softcap=50.0),
        "ALiBi": AttentionVariant(alibi_slopes=per_head),
        "sinks": AttentionVariant(sinks=per_head),
        "window 1024, softcap, sinks": AttentionVariant(window=1024, softcap=50.0, sinks=per_head),
    }


def calls(load: Load) -> dict[str, Callable[[], torch.Tensor]]:
    """One call of each variant over the same random tokens."""
    generator = torch.Generator().manual_seed(0)
    blocks = -(-load.context // BLOCK_SIZE)
    shape = (load.sequences * blocks, KV_HEADS, BLOCK_SIZE, HEAD_DIM)
    cache = LayerCache(*(torch.randn(shape, generator=generator).bfloat16() for _ in "kv"))
    tokens = load.sequences * load.queries
    query = torch.randn(tokens, HEADS, HEAD_DIM, generator=generator).bfloat16()
    batch = PagedBatch(
        torch.arange(0, tokens + 1, load.queries, dtype=torch.int32),
        torch.full((load.sequences,), load.context, dtype=torch.int32),
        torch.randperm(len(cache.key), generator=generator).to(torch.int32).view(load.sequences, -1),
        torch.empty(0),
    )

    def call(variant: AttentionVariant) -> Callable[[], torch.Tensor]:
        return lambda: native.paged_attention(query, cache, batch, HEAD_DIM**-0.5, variant)

    return {name: call(variant) for name, variant in variants().items()}


def microseconds(call: Callable[[], torch.Tensor]) -> float:
    """The mean of as many calls as fill :data:`LEAST_SECONDS`."""
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < LEAST_SECONDS or not count:
        call()
        count += 1
    return elapsed / count * 1e6


def measure(load: Load, repeats: int) -> dict[str, list[float]]:
    """Microseconds of each variant, one figure per repeat."""
    figures: dict[str, list[float]] = {name: [] for name in variants()}
    todo = calls(load)
    for repeat in range(repeats + 1):
        for name, call in todo.items():
            taken = microseconds(call)
            if repeat:  # the first is warm-up
                figures[name].append(taken)
    return figures


def page(measured: dict[str, dict[str, list[float]]], repeats: int, load_average: float) -> str:
    """Medians as Markdown: microseconds, and how many times plain attention that is."""
    names = list(variants())
    lines = [
        "# What variants of attention cost on a CPU",
        "",
        f"Medians of {repeats} by `benchmarks/attention_variants.py`: microseconds of one layer of {HEADS} query heads "
        f"and {KV_HEADS} KV heads of {HEAD_DIM} in bfloat16 on {torch.get_num_threads()} threads, and × plain "
        f"attention. Load average before: {load_average:.1f}.",
        "",
        "| | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for load, figures in measured.items():
        medians = {name: statistics.median(values) for name, values in figures.items()}
        cells = [f"{median:,.0f} (× {median / medians['plain']:.2f})" for median in medians.values()]
        lines.append(f"| {load} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    if library.load() is None:
        parser.error(
            "the compiled kernels are not there: `python -m kernels.native` builds them, or says why it cannot"
        )
    load_average = os.getloadavg()[0]
    library.set_threads(torch.get_num_threads())
    measured = {str(load): measure(load, arguments.repeats) for load in LOADS}
    text = page(measured, arguments.repeats, load_average)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "attention_variants.md").write_text(text)
    record = {"load": load_average, "threads": torch.get_num_threads(), "microseconds": measured}
    (RESULTS / "attention_variants.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
