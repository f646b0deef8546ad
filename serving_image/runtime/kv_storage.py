"""The memory of what attention keeps of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention import LayerCache
from kernels.latent_attention import LatentCache
from kernels.native.library import huge_pages
from serving_image.models.cache_layout import CacheLayout, CacheShape, LatentShape
from serving_image.models.interface import AttentionCache


def allocate_kv_cache(
    layout: CacheLayout, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> list[AttentionCache]:
    """A cache of this many blocks for every attention layer; layers that share storage have the same one.

    They are not cleared: a CPU then takes pages only when tokens reach them, and attention reads no slot that was not
    written. Checkpoints state no scales for a cache of fp8, so they are 1: keys and values beyond ±448 are cut.
    """
    storages: dict[int, AttentionCache] = {}
    for layer, shape in enumerate(layout.shapes):
        storage = layout.storage_of(layer)
        if storage not in storages:
            storages[storage] = _cache(shape, num_blocks, block_size, dtype, device)
    return [storages[layout.storage_of(layer)] for layer in range(len(layout.shapes))]


def _cache(
    shape: CacheShape | LatentShape, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> AttentionCache:
    scaled = dtype.itemsize == 1
    if isinstance(shape, LatentShape):
        rows = _empty((num_blocks, block_size, shape.elements), dtype, device)
        return LatentCache(rows, shape.latent_dim, torch.ones(1, device=device) if scaled else None)
    size = (num_blocks, shape.kv_heads, block_size, shape.head_dim)
    scales = torch.ones((2, shape.kv_heads), device=device) if scaled else None
    return LayerCache(_empty(size, dtype, device), _empty(size, dtype, device), scales)


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if device.type == "cpu":
        huge_pages(tensor)
    return tensor
