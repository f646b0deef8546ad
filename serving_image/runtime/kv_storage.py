"""The memory of the key/value cache."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention import LayerCache
from kernels.native.library import huge_pages
from serving_image.models.config import DecoderConfig


def allocate_kv_cache(
    config: DecoderConfig, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> list[LayerCache]:
    """A cache of this many blocks for every layer.

    They are not cleared: a CPU then takes pages only when tokens reach them, and attention reads no slot that was not
    written. Checkpoints state no scales for a cache of fp8, so they are 1: keys and values beyond ±448 are cut.
    """
    shape = (num_blocks, config.num_kv_heads, block_size, config.head_dim)
    scales = torch.ones((2, config.num_kv_heads), device=device) if dtype.itemsize == 1 else None
    return [
        LayerCache(_empty(shape, dtype, device), _empty(shape, dtype, device), scales) for _ in range(config.num_layers)
    ]


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if device.type == "cpu":
        huge_pages(tensor)
    return tensor
