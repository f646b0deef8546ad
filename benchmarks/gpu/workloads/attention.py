"""Batches of paged attention: random keys and values in pages that lie in no order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from benchmarks.gpu.workloads.tensors import random
from kernels.attention import PLAIN, AttentionVariant, LayerCache, PagedBatch, paged_attention, plan_launch
from kernels.gpu import device_of


@dataclass(frozen=True, slots=True)
class Heads:
    """One layer's heads and cache; by default those of Llama 3 8B. ``cache_dtype`` None: the queries'."""

    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    dtype: torch.dtype = torch.bfloat16
    cache_dtype: torch.dtype | None = None
    page: int = 32

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return self.kv_heads * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one token's key and value of one head."""
        return 2 * self.head_dim * (self.cache_dtype or self.dtype).itemsize

    def pool(self, tokens: int, device: torch.device) -> LayerCache:
        """A cache for so many tokens, full of random values."""
        dtype = self.cache_dtype or self.dtype
        shape = (-(-tokens // self.page), self.kv_heads, self.page, self.head_dim)
        scales = torch.ones(2, self.kv_heads, device=device) if dtype == torch.float8_e4m3fn else None
        return LayerCache(random(shape, dtype, device), random(shape, dtype, device), scales)


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """Arguments of :func:`kernels.attention.paged_attention`. Called, it attends."""

    query: Tensor
    cache: LayerCache
    batch: PagedBatch
    variant: AttentionVariant = PLAIN

    def __call__(self) -> Tensor:
        return paged_attention(self.query, self.cache, self.batch, self.query.shape[2] ** -0.5, self.variant)


def attention(
    heads: Heads,
    queries: Sequence[int],
    contexts: Sequence[int],
    cache: LayerCache,
    *,
    splits: int | None = None,
    variant: AttentionVariant = PLAIN,
) -> AttentionCall:
    """A batch over a cache that holds all its contexts.

    :param queries: each sequence's query tokens; those of one first.
    :param splits: programs that share a decode's context; None: as the engine plans.
    """
    query = random((sum(queries), heads.heads, heads.head_dim), heads.dtype, cache.key.device)
    return AttentionCall(
        query,
        cache,
        paged_batch(query, queries, contexts, page=heads.page, kv_heads=heads.kv_heads, splits=splits),
        variant,
    )


def paged_batch(
    query: Tensor, queries: Sequence[int], contexts: Sequence[int], *, page: int, kv_heads: int, splits: int | None
) -> PagedBatch:
    """What :func:`attention` says, on the device of ``query``, with the pages in no order."""
    device = query.device
    pages = [-(-context // page) for context in contexts]
    order = torch.split(torch.randperm(sum(pages), dtype=torch.int32), pages)
    tables = torch.nn.utils.rnn.pad_sequence(list(order), batch_first=True)
    decodes = sum(count == 1 for count in queries)
    plan = plan_launch(queries, contexts, kv_heads, device_of(query))
    if splits is not None:
        longest = max(contexts[:decodes], default=1)
        plan = plan._replace(splits=splits, split_tokens=-(-longest // splits))
    return PagedBatch(
        query_starts=_int32([0, *accumulate(queries)], device),
        context_lengths=_int32(contexts, device),
        block_tables=tables.to(device),
        slots=torch.zeros(sum(queries), dtype=torch.int64, device=device),
        launch=plan.launch(_int32([plan.split_tokens], device)),
    )


def _int32(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)
