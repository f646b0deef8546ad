"""In plain torch, on any device; normalised and rotated in float32 and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels.attention.cache import LayerCache
from kernels.rotate_and_store.norms import HeadNorms


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache, norms: HeadNorms | None = None
) -> Tensor:
    """See :func:`kernels.rotate_and_store.rotate_and_store`."""
    heads = qkv.view(qkv.shape[0], -1, cache.head_dim)
    first_key, first_value = heads.shape[1] - 2 * cache.kv_heads, heads.shape[1] - cache.kv_heads
    # Queries and keys lie side by side, so one call rotates both.
    turned = turn(heads[:, :first_value], first_key, cos, sin, norms)
    blocks, places = slots // cache.block_size, slots % cache.block_size
    cache.key[blocks, :, places] = turned[:, first_key:]
    cache.value[blocks, :, places] = heads[:, first_value:]
    return turned[:, :first_key]


def turn(heads: Tensor, first_key: int, cos: Tensor, sin: Tensor, norms: HeadNorms | None) -> Tensor:
    """Norms and rotation of ``[tokens, heads + kv_heads, head_dim]``, the keys from head ``first_key`` on."""
    turned = heads.float()
    if norms is not None and not norms.after_rotation:
        turned = _normalised(turned, first_key, norms)
    turned = _rotated(turned, cos, sin)
    if norms is not None and norms.after_rotation:
        turned = _normalised(turned, first_key, norms)
    return turned.to(heads.dtype)


def _normalised(heads: Tensor, first_key: int, norms: HeadNorms) -> Tensor:
    """``[tokens, heads, head_dim]`` float32, keys after queries, to the same."""
    parts = (heads[:, :first_key], norms.query, norms.query_bias), (heads[:, first_key:], norms.key, norms.key_bias)
    return torch.cat([_norm(part, weight, bias, norms) for part, weight, bias in parts], dim=1)


def _norm(heads: Tensor, weight: Tensor, bias: Tensor | None, norms: HeadNorms) -> Tensor:
    vectors = heads.flatten(1) if norms.over_projection else heads
    norm = functional.rms_norm if norms.kind == "rms" else functional.layer_norm
    normalised = norm(vectors, vectors.shape[-1:], eps=norms.epsilon).view(heads.shape)
    normalised.mul_(weight.view(-1, heads.shape[2]))
    return normalised if bias is None else normalised.add_(bias.view(-1, heads.shape[2]))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    output = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = cos.shape[1]
    first, second, rest = x.tensor_split((half, 2 * half), dim=-1)
    rotated_first, rotated_second, rotated_rest = output.tensor_split((half, 2 * half), dim=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    torch.mul(first, cos, out=rotated_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=rotated_second).addcmul_(first, sin)
    rotated_rest.copy_(rest)
    return output
