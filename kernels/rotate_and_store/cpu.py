"""In plain torch, on any device; rotated in float32 and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels.attention.cache import LayerCache
from kernels.rotate_and_store.norms import HeadNorms


def rotate_and_store(qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache) -> Tensor:
    """See :func:`kernels.rotate_and_store.rotate_and_store`."""
    heads = qkv.view(qkv.shape[0], -1, cache.head_dim)
    first_key, first_value = heads.shape[1] - 2 * cache.kv_heads, heads.shape[1] - cache.kv_heads
    # Queries and keys lie side by side, so one call rotates both.
    rotated = _rotate(heads[:, :first_value].float(), cos, sin).to(qkv.dtype)
    blocks, places = slots // cache.block_size, slots % cache.block_size
    cache.key[blocks, :, places] = rotated[:, first_key:]
    cache.value[blocks, :, places] = heads[:, first_value:]
    return rotated[:, :first_key]


def normalise(qkv: Tensor, cache: LayerCache, norms: HeadNorms) -> None:
    """The norms alone, in place: what the other forms for CPUs start from."""
    head_dim = cache.head_dim
    value_start = qkv.shape[1] - cache.kv_heads * head_dim
    key_start = value_start - cache.kv_heads * head_dim
    for part, weight in ((qkv[:, :key_start], norms.query), (qkv[:, key_start:value_start], norms.key)):
        vectors = part.view(qkv.shape[0], -1, weight.numel())
        vectors.copy_(functional.rms_norm(vectors, (weight.numel(),), weight, norms.epsilon))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    output = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = cos.shape[1]
    first, second, rest = x.tensor_split((half, 2 * half), dim=-1)
    rotated_first, rotated_second, rotated_rest = output.tensor_split((half, 2 * half), dim=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    torch.mul(first, cos, out=rotated_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=rotated_second).addcmul_(first, sin)
    rotated_rest.copy_(rest)
    return output
