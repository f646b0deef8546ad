"""Paged attention by the compiled kernels (``kernels/native/src/attention.cpp``).

All query heads of a KV head, and up to 48 query rows, share one pass over the keys. Within a block, keys and values lie
in panels of 32 tokens, as the registers want them, so nothing is gathered or transposed on the way. With a window, only
the panels that it reaches are looked up and read.
"""

from __future__ import annotations

from torch import Tensor

from kernels.attention.cache import PLAIN, AttentionVariant, LayerCache, PagedBatch
from kernels.native import library

PANEL = 32


def stores(cache: LayerCache) -> bool:
    """Whether the compiled kernels write and read this cache, in their own layout."""
    return library.supports(cache.key) and cache.block_size % PANEL == 0 and cache.head_dim % 2 == 0


def paged_attention(
    query: Tensor, cache: LayerCache, batch: PagedBatch, scale: float, variant: AttentionVariant = PLAIN
) -> Tensor:
    """See :func:`kernels.attention.paged_attention`."""
    tokens, heads, head_dim = query.shape
    out = library.result((tokens, heads, head_dim), query.dtype)
    library.function("attention", query.dtype)(
        query.data_ptr(),
        query.stride(0),
        cache.key.data_ptr(),
        cache.value.data_ptr(),
        batch.query_starts.data_ptr(),
        batch.context_lengths.data_ptr(),
        batch.block_tables.data_ptr(),
        batch.block_tables.stride(0),
        batch.context_lengths.shape[0],
        heads,
        cache.kv_heads,
        head_dim,
        cache.block_size,
        float(scale),
        variant.window or 0,
        float(variant.softcap or 0),
        None if variant.alibi_slopes is None else variant.alibi_slopes.data_ptr(),
        None if variant.sinks is None else variant.sinks.data_ptr(),
        out.data_ptr(),
    )
    return out
