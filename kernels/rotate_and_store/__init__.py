"""Between a fused projection and attention: queries and keys are normalised where a family does so and rotated, keys
and values go to the cache."""

from __future__ import annotations

from torch import Tensor

from kernels import gpu
from kernels.attention import native as native_attention
from kernels.attention.cache import LayerCache
from kernels.rotate_and_store import cpu, native, reference
from kernels.rotate_and_store.norms import HeadNorms

__all__ = ["HeadNorms", "rotate_and_store"]


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache, norms: HeadNorms | None = None
) -> Tensor:
    """Rotate each pair ``(x[i], x[i + n])`` of every query and key head by its token's angle, for ``i < n``, and store
    the keys and the values in the cache. Elements from ``2 n`` on are not rotated.

    :param qkv: ``[tokens, (heads + 2 · kv_heads) · head_dim]``, contiguous: query heads, key heads, value heads. May be
        overwritten.
    :param cos: ``[tokens, n]`` float32, contiguous; ``0 ≤ 2 n ≤ head_dim``.
    :param sin: like ``cos``.
    :param slots: ``[tokens]`` int64, see :class:`kernels.attention.PagedBatch`. For a slot of -1, on a GPU, nothing is
        stored.
    :param cache: written in place. With ``scales``, what is beyond the range of its dtype becomes the end of the range.
    :param norms: applied to queries and keys before the rotation or after it.
    :returns: the rotated queries, ``[tokens, heads, head_dim]``; they may lie in the memory of ``qkv``.
    :raises ValueError: norms that do not fit the heads.

    Method: Su et al. 2021, arXiv 2104.09864, in GPT-NeoX's pairing.
    """
    if norms is not None:
        heads = qkv.shape[1] // cache.head_dim - 2 * cache.kv_heads
        norms.check(heads, cache.kv_heads, cache.head_dim, qkv.dtype)
    if gpu.serves(qkv):
        from kernels.rotate_and_store import triton as form

        return form.rotate_and_store(qkv, cos, sin, slots, cache, norms)
    if cache.scales is not None:
        return reference.rotate_and_store(qkv, cos, sin, slots, cache, norms)
    if native_attention.stores(cache):
        return native.rotate_and_store(qkv, cos, sin, slots, cache, norms)
    return cpu.rotate_and_store(qkv, cos, sin, slots, cache, norms)
