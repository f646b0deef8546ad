"""Latent attention written for the reader: the compressed rows are the keys of one head that all queries share, and
their latents its values."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.cache import PagedBatch
from kernels.latent_attention.cache import LatentCache
from kernels.rms_norm.reference import rms_norm
from kernels.rotate_and_store.reference import rotate


def latent_attention(query: Tensor, cache: LatentCache, batch: PagedBatch, scale: float) -> Tensor:
    """See :func:`kernels.latent_attention.latent_attention`. Rows of sequences without context, which only fill a CUDA
    graph, become zero."""
    output = torch.zeros_like(query[..., : cache.latent_dim], memory_format=torch.contiguous_format)
    for index, context in enumerate(batch.context_lengths.tolist()):
        rows = slice(*batch.query_starts[index : index + 2].tolist())
        positions = torch.arange(context, device=query.device)
        blocks = batch.block_tables[index][positions // cache.block_size].long()
        keys = cache.rows[blocks, positions % cache.block_size].float()
        if cache.scale is not None:
            keys = keys * cache.scale
        scores = torch.einsum("qhd,kd->hqk", query[rows].float(), keys) * scale
        seen_from = torch.arange(context - (rows.stop - rows.start), context, device=query.device)
        scores.masked_fill_(positions[None, :] > seen_from[:, None], float("-inf"))
        if context:
            values = keys[:, : cache.latent_dim]
            output[rows] = torch.einsum("hqk,kd->qhd", scores.softmax(dim=-1), values).to(query.dtype)
    return output


def store_latent(
    query: Tensor,
    compressed: Tensor,
    weight: Tensor,
    epsilon: float,
    cos: Tensor,
    sin: Tensor,
    slots: Tensor,
    cache: LatentCache,
) -> None:
    """See :func:`kernels.latent_attention.store_latent`."""
    rotated = query[..., -cache.rope_dim :]
    rotated.copy_(rotate(rotated, cos, sin))
    latent, key = compressed[:, : cache.latent_dim], compressed[:, cache.latent_dim :]
    rows = torch.cat((rms_norm(latent, weight, epsilon), rotate(key[:, None], cos, sin)[:, 0]), dim=1)
    if cache.scale is not None:
        limit = torch.finfo(cache.rows.dtype).max
        rows = (rows.float() / cache.scale).clamp(-limit, limit).to(cache.rows.dtype)
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            cache.rows[slot // cache.block_size, slot % cache.block_size] = rows[token]
