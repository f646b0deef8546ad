"""Both in one pass over the tokens, by the compiled kernels (``kernels/native/src/attention.cpp``)."""

from __future__ import annotations

from torch import Tensor

from kernels.attention.cache import LayerCache
from kernels.native import library


def rotate_and_store(qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache) -> Tensor:
    """See :func:`kernels.rotate_and_store.rotate_and_store`."""
    tokens, width = qkv.shape
    kv_heads, head_dim = cache.kv_heads, cache.head_dim
    heads = width // head_dim - 2 * kv_heads
    library.function("rotate_and_store", qkv.dtype)(
        qkv.data_ptr(),
        tokens,
        heads,
        kv_heads,
        head_dim,
        cache.block_size,
        cos.shape[1],
        cos.data_ptr(),
        sin.data_ptr(),
        slots.data_ptr(),
        cache.key.data_ptr(),
        cache.value.data_ptr(),
    )
    return qkv.view(tokens, -1, head_dim)[:, :heads]
