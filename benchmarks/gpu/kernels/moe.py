"""Mixtures of experts: few tokens read the weights of the experts they meet, many multiply with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.workloads.moe import Experts, mixture

MODELS = {
    "Qwen3 30B-A3B": Experts(),
    "Mixtral 8x7B": replace(Experts(), hidden=4096, intermediate=14_336, experts=8, top_k=2),
}


def measure(
    bench: Bench, models: Mapping[str, Experts] = MODELS, batches: Sequence[int] = (1, 16, 64, 256, 8192)
) -> None:
    """One layer without its router."""
    for name, experts in models.items():
        layer = experts.layer(bench.device)
        for tokens in batches:
            call = mixture(experts, tokens, layer)
            used = len(set(call.routing.experts.view(-1).tolist()))
            weights = used * 3 * experts.intermediate * experts.hidden
            choices = tokens * experts.top_k
            bench.figure(
                "moe",
                f"{name}, {tokens} tokens",
                call,
                moved=experts.dtype.itemsize * (weights + 2 * tokens * experts.hidden),
                operations=6 * choices * experts.intermediate * experts.hidden,
            )
