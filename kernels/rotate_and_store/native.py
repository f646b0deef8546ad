"""Both in one pass over the tokens, by the compiled kernels (``kernels/native/src/attention.cpp``)."""

from __future__ import annotations

from torch import Tensor

from kernels.attention.cache import LayerCache
from kernels.native import library
from kernels.rotate_and_store import cpu
from kernels.rotate_and_store.norms import HeadNorms


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache, norms: HeadNorms | None = None
) -> Tensor:
    """See :func:`kernels.rotate_and_store.rotate_and_store`."""
    tokens, width = qkv.shape
    kv_heads, head_dim = cache.kv_heads, cache.head_dim
    heads = width // head_dim - 2 * kv_heads
    if norms is not None:
        turned = qkv.view(tokens, -1, head_dim)[:, : heads + kv_heads]
        turned.copy_(cpu.turn(turned, heads, cos, sin, norms))
        cos, sin = cos[:, :0], sin[:, :0]
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
