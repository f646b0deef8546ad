"""Norms, a rotation of planes in float32, and a loop over tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.attention.cache import LayerCache
from kernels.rotate_and_store.norms import HeadNorms


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache, norms: HeadNorms | None = None
) -> Tensor:
    """See :func:`kernels.rotate_and_store.rotate_and_store`; the cache is in the plain layout."""
    heads = qkv.view(qkv.shape[0], -1, cache.head_dim)
    first_key, first_value = heads.shape[1] - 2 * cache.kv_heads, heads.shape[1] - cache.kv_heads
    query, key, value = heads[:, :first_key].float(), heads[:, first_key:first_value].float(), heads[:, first_value:]
    if norms is not None and not norms.after_rotation:
        query, key = _normalised(query, key, norms)
    query, key = rotate(query, cos, sin), rotate(key, cos, sin)
    if norms is not None and norms.after_rotation:
        query, key = _normalised(query, key, norms)
    query, key = query.to(qkv.dtype), key.to(qkv.dtype)
    for token, slot in enumerate(slots.tolist()):
        if slot < 0:
            continue
        block, place = divmod(slot, cache.block_size)
        cache.key[block, :, place] = stored(key[token], cache, 0)
        cache.value[block, :, place] = stored(value[token], cache, 1)
    return query


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


def _normalised(query: Tensor, key: Tensor, norms: HeadNorms) -> tuple[Tensor, Tensor]:
    """Both as ``[tokens, heads, head_dim]`` float32."""
    return (
        _norm(query, norms.query.float(), norms.query_bias, norms),
        _norm(key, norms.key.float(), norms.key_bias, norms),
    )


def _norm(heads: Tensor, weight: Tensor, bias: Tensor | None, norms: HeadNorms) -> Tensor:
    """Moments over each head or over all of a token's, then the affine part of each head or of all."""
    vectors = heads.flatten(1)[:, None] if norms.over_projection else heads
    if norms.kind == "layer":
        vectors = vectors - vectors.mean(dim=-1, keepdim=True)
    mean_square = vectors.square().mean(dim=-1, keepdim=True)
    normalised = (vectors / torch.sqrt(mean_square + norms.epsilon)).view(heads.shape) * weight.view(-1, heads.shape[2])
    return normalised if bias is None else normalised + bias.float().view(-1, heads.shape[2])
