"""The memory of the key/value cache."""

from __future__ import annotations

import torch

from kernels.attention import LayerCache
from serving_image.models.config import DecoderConfig


def allocate_kv_cache(
    config: DecoderConfig, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> list[LayerCache]:
    """A cache of this many blocks for every layer.

    They are not cleared: a CPU then takes pages only when tokens reach them, and attention reads no slot that was not
    written.
    """
    shape = (num_blocks, config.num_kv_heads, block_size, config.head_dim)
    return [
        LayerCache(torch.empty(shape, dtype=dtype, device=device), torch.empty(shape, dtype=dtype, device=device))
        for _ in range(config.num_layers)
    ]
