"""Norms, a rotation of planes in float32, and a loop over tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.cache import LayerCache
from kernels.rms_norm.reference import rms_norm
from kernels.rotate_and_store.norms import HeadNorms


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache, norms: HeadNorms | None = None
) -> Tensor:
    """See :func:`kernels.rotate_and_store.rotate_and_store`; the cache is in the plain layout."""
    heads = qkv.view(qkv.shape[0], -1, cache.head_dim)
    first_key, first_value = heads.shape[1] - 2 * cache.kv_heads, heads.shape[1] - cache.kv_heads
    query, key, value = heads[:, :first_key], heads[:, first_key:first_value], heads[:, first_value:]
    if norms is not None:
        query, key = (_normalised(query, norms.query, norms.epsilon), _normalised(key, norms.key, norms.epsilon))
    key = rotate(key, cos, sin)
    for token, slot in enumerate(slots.tolist()):
        if slot < 0:
            continue
        block, place = divmod(slot, cache.block_size)
        cache.key[block, :, place] = stored(key[token], cache, 0)
        cache.value[block, :, place] = stored(value[token], cache, 1)
    return rotate(query, cos, sin)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first ``2 n`` elements of each head of ``x`` turned; ``cos`` and ``sin`` are ``[tokens, n]``."""
    half = cos.shape[1]
    first, second, rest = x.float().tensor_split((half, 2 * half), dim=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1).to(x.dtype)


def stored(heads: Tensor, cache: LayerCache, row: int) -> Tensor:
    """One token's ``[kv_heads, head_dim]`` as the cache holds it; ``row`` is that of its scales."""
    if cache.scales is None:
        return heads
    limit = torch.finfo(cache.key.dtype).max
    return (heads.float() / cache.scales[row, :, None]).clamp(-limit, limit).to(cache.key.dtype)


def _normalised(heads: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """``[tokens, heads, head_dim]`` in vectors as long as the weight."""
    return rms_norm(heads.reshape(heads.shape[0], -1, weight.numel()), weight, epsilon).view(heads.shape)
