"""Paged attention written for the reader: explicit gather, float32 scores, explicit mask."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.cache import PLAIN, AttentionVariant, LayerCache, PagedBatch


def paged_attention(
    query: Tensor, cache: LayerCache, batch: PagedBatch, scale: float, variant: AttentionVariant = PLAIN
) -> Tensor:
    """See :func:`kernels.attention.paged_attention`; the cache is in the plain layout, its elements in the order of its
    shape. Rows of sequences without context, which only fill a CUDA graph, become zero."""
    output = torch.zeros_like(query, memory_format=torch.contiguous_format)
    for index, context in enumerate(batch.context_lengths.tolist()):
        rows = slice(*batch.query_starts[index : index + 2].tolist())
        first_query = context - (rows.stop - rows.start)
        # What the first query does not see, none sees: its blocks may belong to others by now.
        first_key = variant.first_seen(first_query)
        keys, values = _gathered(cache, batch.block_tables[index], slice(first_key, context), query.shape[1])
        key_position = torch.arange(first_key, context, device=query.device)
        query_position = torch.arange(first_query, context, device=query.device)
        distance = key_position[None, :] - query_position[:, None]
        if context:
            scores = torch.einsum("qhd,khd->hqk", query[rows].float(), keys) * scale
            weights = weights_of(scores, distance, variant)
            output[rows] = torch.einsum("hqk,khd->qhd", weights, values).to(query.dtype)
    return output


def gather(cache: Tensor, block_table: Tensor, seen: slice) -> Tensor:
    """A sequence's tokens from ``seen.start`` to ``seen.stop``, ``[tokens, kv_heads, head_dim]``, out of ``[blocks,
    kv_heads, block_size, head_dim]``."""
    block_size = cache.shape[2]
    positions = torch.arange(seen.start, seen.stop, device=cache.device)
    return cache[block_table[positions // block_size].long(), :, positions % block_size]


def _gathered(cache: LayerCache, block_table: Tensor, seen: slice, heads: int) -> tuple[Tensor, Tensor]:
    """Keys and values as the query heads see them, ``[tokens, heads, head_dim]`` float32."""
    keys, values = (gather(part, block_table, seen).float() for part in (cache.key, cache.value))
    if cache.scales is not None:
        keys, values = keys * cache.scales[0][:, None], values * cache.scales[1][:, None]
    group = heads // cache.kv_heads
    return keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)


def weights_of(scores: Tensor, distance: Tensor, variant: AttentionVariant) -> Tensor:
    """``[heads, queries, keys]``: what each value counts. ``distance`` is from a query to a key, negative to the past;
    ``[queries, keys]``."""
    if variant.softcap is not None:
        scores = variant.softcap * torch.tanh(scores / variant.softcap)
    if variant.alibi_slopes is not None:
        scores = scores + variant.alibi_slopes[:, None, None] * distance
    hidden = distance > 0
    if variant.window is not None:
        hidden = hidden | (distance <= -variant.window)
    scores = scores.masked_fill(hidden, float("-inf"))
    if variant.sinks is None:
        return scores.softmax(dim=-1)
    sinks = variant.sinks[:, None, None].expand(-1, scores.shape[1], 1)
    return torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]
