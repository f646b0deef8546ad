"""A rotation of planes in float32, and a loop over tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.cache import LayerCache


def rotate_and_store(qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache) -> Tensor:
    """See :func:`kernels.rotate_and_store.rotate_and_store`; the cache is in the plain layout."""
    heads = qkv.view(qkv.shape[0], -1, cache.head_dim)
    first_key, first_value = heads.shape[1] - 2 * cache.kv_heads, heads.shape[1] - cache.kv_heads
    key, value = rotate(heads[:, first_key:first_value], cos, sin), heads[:, first_value:]
    for token, slot in enumerate(slots.tolist()):
        block, place = divmod(slot, cache.block_size)
        cache.key[block, :, place] = key[token]
        cache.value[block, :, place] = value[token]
    return rotate(heads[:, :first_key], cos, sin)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first ``2 n`` elements of each head of ``x`` turned; ``cos`` and ``sin`` are ``[tokens, n]``."""
    half = cos.shape[1]
    first, second, rest = x.float().tensor_split((half, 2 * half), dim=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1).to(x.dtype)
