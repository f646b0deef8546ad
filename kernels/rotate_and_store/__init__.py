"""Between a fused projection and attention: queries and keys are rotated, keys and values go to the cache."""

from __future__ import annotations

from torch import Tensor

from kernels.attention import native as native_attention
from kernels.attention.cache import LayerCache
from kernels.rotate_and_store import cpu, native

__all__ = ["rotate_and_store"]


def rotate_and_store(qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache) -> Tensor:
    """Rotate each pair ``(x[i], x[i + n])`` of every query and key head by its token's angle, for ``i < n``, and store
    the keys and the values in the cache. Elements from ``2 n`` on are not rotated.

    :param qkv: ``[tokens, (heads + 2 · kv_heads) · head_dim]``, contiguous: query heads, key heads, value heads. May be
        overwritten.
    :param cos: ``[tokens, n]`` float32, contiguous; ``2 n ≤ head_dim``.
    :param sin: like ``cos``.
    :param slots: ``[tokens]`` int64, see :class:`kernels.attention.PagedBatch`.
    :param cache: written in place.
    :returns: the rotated queries, ``[tokens, heads, head_dim]``; they may lie in the memory of ``qkv``.

    Method: Su et al. 2021, arXiv 2104.09864, in GPT-NeoX's pairing.
    """
    if native_attention.stores(cache):
        return native.rotate_and_store(qkv, cos, sin, slots, cache)
    return cpu.rotate_and_store(qkv, cos, sin, slots, cache)
