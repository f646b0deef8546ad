"""The memory of the key/value cache."""

from __future__ import annotations

import torch

from serving_image.models.config import DecoderConfig
from serving_image.models.decoder import LayerCache


def allocate_kv_cache(
    config: DecoderConfig, num_slots: int, dtype: torch.dtype, device: torch.device
) -> list[LayerCache]:
    """Key and value tensors ``[num_slots, kv_heads, head_dim]`` for every layer.

    They are not cleared: a CPU then takes pages only when tokens reach them, and attention reads no slot that was not
    written. See :mod:`kernels.attention.spans` for the layout.
    """
    shape = (num_slots, config.num_kv_heads, config.head_dim)
    return [
        LayerCache(torch.empty(shape, dtype=dtype, device=device), torch.empty(shape, dtype=dtype, device=device))
        for _ in range(config.num_layers)
    ]
