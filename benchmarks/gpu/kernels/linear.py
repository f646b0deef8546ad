"""Products of few rows at the shapes of Llama 3 8B, beside cuBLAS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import linear, silu

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.workloads.linear import gated_product, product
from benchmarks.gpu.workloads.tensors import random

SHAPES = {
    "qkv": (6144, 4096),
    "attention output": (4096, 4096),
    "down": (4096, 14_336),
    "vocabulary": (128_256, 4096),
}
GATED = (14_336, 4096)


def measure(
    bench: Bench,
    rows: Sequence[int] = (1, 2, 4, 8, 16),
    shapes: dict[str, tuple[int, int]] | None = None,
    gated: tuple[int, int] = GATED,
) -> None:
    """Every weight is read once, whatever the rows."""
    for name, (columns, depth) in (shapes or SHAPES).items():
        weight = random((columns, depth), torch.bfloat16, bench.device, 0.02)
        for count in rows:
            x = random((count, depth), torch.bfloat16, bench.device)
            bench.figure(
                "few_rows",
                f"{name}, {count} × {depth} → {columns}",
                product(count, columns, depth, torch.bfloat16, bench.device),
                moved=2 * (columns * depth + count * (columns + depth)),
                operations=2 * count * columns * depth,
                peers={"cuBLAS": lambda x=x, weight=weight: linear(x, weight)},  # type: ignore[misc]
            )
    intermediate, depth = gated
    weight = random((2 * intermediate, depth), torch.bfloat16, bench.device, 0.02)
    for count in rows:
        x = random((count, depth), torch.bfloat16, bench.device)

        def separate(x: torch.Tensor = x) -> torch.Tensor:
            gate, up = linear(x, weight).chunk(2, dim=1)
            return silu(gate) * up

        bench.figure(
            "few_rows",
            f"gate and up with SwiGLU, {count} × {depth} → 2 · {intermediate}",
            gated_product(count, intermediate, depth, bench.device),
            moved=2 * (2 * intermediate * depth + count * (intermediate + depth)),
            operations=4 * count * intermediate * depth,
            peers={"cuBLAS and torch": separate},
        )
