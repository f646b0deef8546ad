"""Batches of latent attention over the compressed cache of DeepSeek V2 and V3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.workloads.attention import paged_batch
from benchmarks.gpu.workloads.tensors import random
from kernels.attention import PagedBatch
from kernels.gpu import device_of
from kernels.latent_attention import LatentCache, latent_attention
from kernels.latent_attention.triton import head_groups

LATENT, ROPE = 512, 64


@dataclass(frozen=True, slots=True)
class LatentCall:
    """Arguments of :func:`kernels.latent_attention.latent_attention`. Called, it attends."""

    query: Tensor
    cache: LatentCache
    batch: PagedBatch

    def __call__(self) -> Tensor:
        return latent_attention(self.query, self.cache, self.batch, (128 + ROPE) ** -0.5)


def latent_pool(tokens: int, page: int, dtype: torch.dtype, device: torch.device) -> LatentCache:
    """A cache for so many tokens, full of random values."""
    scale = torch.ones(1, device=device) if dtype == torch.float8_e4m3fn else None
    return LatentCache(random((-(-tokens // page), page, LATENT + ROPE), dtype, device), LATENT, scale)


def latent(
    heads: int,
    queries: Sequence[int],
    contexts: Sequence[int],
    cache: LatentCache,
    dtype: torch.dtype,
    *,
    splits: int | None = None,
) -> LatentCall:
    """A batch over a cache that holds all its contexts; see :func:`benchmarks.gpu.workloads.attention.attention`."""
    query = random((sum(queries), heads, LATENT + ROPE), dtype, cache.rows.device)
    groups = head_groups(heads, cache, device_of(query))
    batch = paged_batch(query, queries, contexts, page=cache.block_size, kv_heads=groups, splits=splits)
    return LatentCall(query, cache, batch)
