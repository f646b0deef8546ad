"""Decoding over the compressed cache of DeepSeek V2 and V3."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.workloads.latent import LATENT, ROPE, latent, latent_pool


def measure(
    bench: Bench,
    heads: Sequence[int] = (128, 16),
    cases: Sequence[tuple[int, int]] = ((1, 8192), (1, 65_536), (32, 8192), (128, 8192)),
) -> None:
    """One query token each; every cached row is read once for all heads."""
    pool = latent_pool(max(batch * context for batch, context in cases), 32, torch.bfloat16, bench.device)
    for count in heads:
        for batch, context in cases:
            call = latent(count, [1] * batch, [context] * batch, pool, torch.bfloat16)
            bench.figure(
                "latent_attention",
                f"{count} heads, batch {batch}, context {context}",
                call,
                moved=2 * batch * (context * (LATENT + ROPE) + count * (2 * LATENT + ROPE)),
                operations=2 * count * (2 * LATENT + ROPE) * batch * context,
            )
