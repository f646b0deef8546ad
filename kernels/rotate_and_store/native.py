"""All in one pass over the tokens, by the compiled kernels (``kernels/native/src/rotate.cpp``)."""

from __future__ import annotations

from enum import IntFlag

from torch import Tensor, float32

from kernels.attention.cache import LayerCache
from kernels.native import library
from kernels.rotate_and_store.norms import HeadNorms


class _Norm(IntFlag):
    """As ``rotate.cpp`` has them."""

    LAYER = 1
    PROJECTION = 2
    AFTER = 4
    WIDE = 8
    OWN_QUERIES = 16
    OWN_KEYS = 32


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache, norms: HeadNorms | None = None
) -> Tensor:
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
        *_norm_arguments(norms, head_dim),
    )
    return qkv.view(tokens, -1, head_dim)[:, :heads]


def _norm_arguments(norms: HeadNorms | None, head_dim: int) -> tuple[float | None, ...]:
    if norms is None:
        return None, None, None, None, 0.0, 0
    flags = {
        _Norm.LAYER: norms.kind == "layer",
        _Norm.PROJECTION: norms.over_projection,
        _Norm.AFTER: norms.after_rotation,
        _Norm.WIDE: norms.query.dtype == float32,
        _Norm.OWN_QUERIES: norms.query.numel() > head_dim,
        _Norm.OWN_KEYS: norms.key.numel() > head_dim,
    }
    tensors = norms.query, norms.key, norms.query_bias, norms.key_bias
    addresses = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    return *addresses, float(norms.epsilon), sum(flag for flag, given in flags.items() if given)
