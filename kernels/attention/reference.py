"""Paged attention written for the reader: explicit gather, float32 scores, explicit mask."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.cache import LayerCache, PagedBatch


def paged_attention(query: Tensor, cache: LayerCache, batch: PagedBatch, scale: float) -> Tensor:
    """See :func:`kernels.attention.paged_attention`; the cache is in the plain layout, its elements in the order of its
    shape."""
    output = torch.empty_like(query)
    group = query.shape[1] // cache.kv_heads
    for index, context in enumerate(batch.context_lengths.tolist()):
        rows = slice(*batch.query_starts[index : index + 2].tolist())
        keys, values = (gather(part, batch.block_tables[index], context).float() for part in (cache.key, cache.value))
        keys, values = (part.repeat_interleave(group, dim=1) for part in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", query[rows].float(), keys) * scale
        key_position = torch.arange(context, device=query.device)
        query_position = key_position[rows.start - rows.stop :]
        scores.masked_fill_(key_position[None, :] > query_position[:, None], float("-inf"))
        output[rows] = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), values).to(query.dtype)
    return output


def gather(cache: Tensor, block_table: Tensor, context: int) -> Tensor:
    """A sequence's tokens, ``[context, kv_heads, head_dim]``, out of ``[blocks, kv_heads, block_size, head_dim]``."""
    block_size = cache.shape[2]
    positions = torch.arange(context, device=cache.device)
    return cache[block_table[positions // block_size].long(), :, positions % block_size]
