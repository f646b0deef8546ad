"""Latent attention in plain torch, on any device: the compressed rows are one KV head's keys, and its values too, of
which the latents are kept. That is an eighth more to add up than the latents alone, for one fused call of SDPA."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention import cpu
from kernels.attention.cache import LayerCache, PagedBatch
from kernels.latent_attention.cache import LatentCache
from kernels.rms_norm.cpu import rms_norm
from kernels.rotate_and_store.reference import rotate


def latent_attention(query: Tensor, cache: LatentCache, batch: PagedBatch, scale: float) -> Tensor:
    """See :func:`kernels.latent_attention.latent_attention`."""
    rows = cache.rows.unsqueeze(1)
    return cpu.paged_attention(query, LayerCache(rows, rows), batch, scale)[..., : cache.latent_dim].contiguous()


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
    kept = slots >= 0
    slots = slots[kept]
    cache.rows[slots // cache.block_size, slots % cache.block_size] = rows[kept]
