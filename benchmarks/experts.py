#!/usr/bin/env python3
"""What a mixture of experts costs on a CPU, beside its floor, torch and the definition.

    .venv/bin/python benchmarks/experts.py [--repeats N]

One layer in bfloat16, experts only, with random routing, on one core: what is counted is the processor's time, which
other programs take little from. The floor is the larger of two times: reading the experts in
use as fast as a product of one row reads a weight that no cache holds, and multiplying as fast as a dense product of
512 rows does; both are measured here, in turn with the rest. Writes benchmarks/results/experts.json and .md.
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

from kernels.linear import EXACT, INT8, Layout  # noqa: E402
from kernels.moe import SWIGLU, Router, Routing, experts_forward, reference, route  # noqa: E402
from kernels.native import library  # noqa: E402

RESULTS = BENCHMARKS / "results"
CPU, DTYPE = torch.device("cpu"), torch.bfloat16
TOKENS = (1, 16, 512)
FLUSHED = 1 << 26
"""Bytes that are written before each call, so that no weight is left in a cache."""


class Layer(NamedTuple):
    """The sizes of a mixture."""

    experts: int
    top_k: int
    hidden: int
    intermediate: int

    def __str__(self) -> str:
        return f"{self.top_k} of {self.experts}, {self.hidden} → {self.intermediate}"

    def floor(self, tokens: int, routing: Routing, read: float, multiply: float) -> float:
        """Microseconds, from bytes and operations per microsecond."""
        used, size = routing.experts.unique().numel(), 3 * self.hidden * self.intermediate
        return max(2 * used * size / read, 2 * tokens * self.top_k * size / multiply)


LAYERS = (Layer(8, 2, 1024, 3584), Layer(64, 8, 2048, 768))


class Workload:
    """What is measured of one layer."""

    def __init__(self, layer: Layer) -> None:
        generator = torch.Generator().manual_seed(0)
        self._layer = layer
        shape = (layer.experts, 2 * layer.intermediate, layer.hidden)
        self._gate_up = (torch.randn(shape, generator=generator) * 0.02).to(DTYPE)
        shape = (layer.experts, layer.hidden, layer.intermediate)
        self._down = (torch.randn(shape, generator=generator) * 0.02).to(DTYPE)
        self._exact, self._int8 = self._taken_in(EXACT), self._taken_in(INT8)
        # As many columns as two experts have.
        self._dense = EXACT.weight(self._gate_up[:2].flatten(0, 1))
        self._dense_size = 2 * 2 * layer.intermediate * layer.hidden

    def _taken_in(self, layout: Layout) -> Callable[..., torch.Tensor]:
        layer = self._layer
        weights = layout.experts(
            layer.experts, layer.hidden, layer.intermediate, DTYPE, CPU, activation=SWIGLU, biases=False
        )
        for index in range(layer.experts):
            weights.set_gate_up(index, self._gate_up[index])
            weights.set_down(index, self._down[index])
        return weights.forward

    def routing(self, tokens: int) -> Routing:
        logits = torch.randn(tokens, self._layer.experts, generator=torch.Generator().manual_seed(tokens))
        return route(logits, Router(self._layer.top_k, renormalise=True))

    def calls(self, tokens: int) -> dict[str, Callable[[], torch.Tensor]]:
        """By their names in the table."""
        x = torch.randn(tokens, self._layer.hidden, generator=torch.Generator().manual_seed(1)).to(DTYPE)
        many, routing = x[:1].expand(512, -1).contiguous(), self.routing(tokens)
        plain = (x, self._gate_up, self._down, routing, SWIGLU)
        no_terms = {"gate_up_bias": None, "down_bias": None, "residual": None}
        return {
            "read": lambda: self._dense.multiply(x[:1]),
            "multiply": lambda: self._dense.multiply(many),
            "compiled": lambda: self._exact(x, routing),
            "compiled, int8": lambda: self._int8(x, routing),
            "torch": lambda: experts_forward(*plain),
            "definition": lambda: reference.experts_forward(*plain, **no_terms),
        }

    def rates(self, figures: dict[str, list[float]]) -> tuple[float, float]:
        """Bytes and operations per microsecond that dense products reached."""
        read, multiply = (statistics.median(figures[name]) for name in ("read", "multiply"))
        return 2 * self._dense_size / read, 2 * 512 * self._dense_size / multiply


def measure(calls: dict[str, Callable[[], torch.Tensor]], repeats: int) -> dict[str, list[float]]:
    """Microseconds of each call, one figure per repeat, in turn."""
    figures: dict[str, list[float]] = {name: [] for name in calls}
    flushed = torch.zeros(FLUSHED, dtype=torch.uint8)
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            flushed.add_(1)
            started = time.thread_time()
            call()
            taken = (time.thread_time() - started) * 1e6
            if repeat:  # the first is warm-up
                figures[name].append(taken)
    return figures


def rows(layer: Layer, repeats: int) -> list[dict[str, object]]:
    """One row of the table for each number of tokens."""
    workload, found = Workload(layer), []
    for tokens in TOKENS:
        figures = measure(workload.calls(tokens), repeats)
        routing = workload.routing(tokens)
        floor = layer.floor(tokens, routing, *workload.rates(figures))
        used = routing.experts.unique().numel()
        found.append({"layer": str(layer), "tokens": tokens, "used": used, "floor": floor, "microseconds": figures})
    return found


def page(found: list[dict[str, object]], repeats: int, load_average: float) -> str:
    """Medians as Markdown: microseconds, and how many times the floor that is."""
    names = ("compiled", "compiled, int8", "torch", "definition")
    lines = [
        "# What a mixture of experts costs on a CPU",
        "",
        f"Medians of {repeats} by `benchmarks/experts.py`: microseconds of one core for one layer's experts in "
        "bfloat16, and × the floor, which is reading the experts in use or multiplying with "
        f"them at the rates of dense products. Load average before: {load_average:.1f}.",
        "",
        "| layer | tokens | experts in use | floor | " + " | ".join(names) + " |",
        "|---|" + "---:|" * (3 + len(names)),
    ]
    for row in found:
        floor, figures = row["floor"], row["microseconds"]
        medians = [statistics.median(figures[name]) for name in names]
        cells = [f"{median:,.0f} (× {median / floor:.2f})" for median in medians]
        lines.append(f"| {row['layer']} | {row['tokens']} | {row['used']} | {floor:,.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if library.load() is None:
        parser.error(
            "the compiled kernels are not there: `python -m kernels.native` builds them, or says why it cannot"
        )
    load_average = os.getloadavg()[0]
    torch.set_num_threads(1)
    library.set_threads(1)
    found = [row for layer in LAYERS for row in rows(layer, arguments.repeats)]
    text = page(found, arguments.repeats, load_average)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "experts.md").write_text(text)
    record = {"load": load_average, "rows": found}
    (RESULTS / "experts.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
