# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Norm of the latents, rotation of keys and queries, and storage, in one pass.

Of ``[tokens, latent_dim + rope_dim]`` each element is read and written once, and of ``[tokens, heads, rope_dim]`` of
the queries: 8,192 tokens of 512 + 64 beside 128 heads in bfloat16 move 287 MB, nearly all of it queries.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.latent_attention.cache import LatentCache
from kernels.rotate_and_store.triton import load_angles, load_head, rotated, store, store_head


def store_latent(
    query: Tensor,
    compressed: Tensor,
    weight: Tensor,
    epsilon: float,
    cos: Tensor,
    sin: Tensor,
    slots: Tensor,
    cache: LatentCache,
) -> None:
    """See :func:`kernels.latent_attention.store_latent`."""
    tokens, heads, dim = query.shape
    if not tokens:
        return
    tile = tile_shape("latent_attention", "store", "any", device_of(query))
    query_programs = triton.cdiv(tokens * heads, tile["rows"])
    _store_latent[(query_programs + triton.cdiv(tokens, tile["tokens"]),)](
        query,
        compressed,
        weight,
        epsilon,
        cos,
        sin,
        slots,
        cache.rows,
        cache.scale,
        tokens,
        query_programs,
        query.stride(0),
        query.stride(1),
        compressed.stride(0),
        cache.rows.stride(0),
        HEADS=heads,
        QUERY_DIM=dim,
        LATENT=cache.latent_dim,
        HALF=cos.shape[1],
        BLOCK_SIZE=cache.block_size,
        ROWS=tile["rows"],
        TOKENS=tile["tokens"],
        num_warps=tile["num_warps"],
        num_stages=tile["num_stages"],
    )


@triton.jit(do_not_specialize=["tokens", "query_programs"])
def _store_latent(
    query,
    compressed,
    weight,
    epsilon,
    cos,
    sin,
    slots,
    cache,
    scale,
    tokens,
    query_programs,
    token_stride,
    head_stride,
    compressed_stride,
    block_stride,
    HEADS: tl.constexpr,
    QUERY_DIM: tl.constexpr,
    LATENT: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """The first ``query_programs`` programs take ``ROWS`` heads each, the others ``TOKENS`` tokens."""
    if tl.program_id(0) < query_programs:
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
        token = (row // HEADS).to(tl.int64)
        head = query + token * token_stride + row % HEADS * head_stride + QUERY_DIM - 2 * HALF
        _rotate(head, head, token, token < tokens, token < tokens, cos, sin, None, HALF)
    else:
        program = tl.program_id(0) - query_programs
        places = (program * TOKENS + tl.arange(0, TOKENS)[:, None]).to(tl.int64)
        slot = tl.load(slots + places, mask=places < tokens, other=-1)
        source = compressed + places * compressed_stride
        target = cache + slot // BLOCK_SIZE * block_stride + slot % BLOCK_SIZE * (LATENT + 2 * HALF)
        _normalise(source, target, places < tokens, slot >= 0, weight, epsilon, scale, LATENT)
        _rotate(source + LATENT, target + LATENT, places, places < tokens, slot >= 0, cos, sin, scale, HALF)


@triton.jit
def _normalise(source, target, present, kept, weight, epsilon, scale, LATENT: tl.constexpr):
    """All pointers are to the first element of each row, ``[rows, 1]``, but that to the weight."""
    column = tl.arange(0, triton.next_power_of_2(LATENT))[None, :]
    inside = column < LATENT
    latent = tl.load(source + column, mask=present & inside, other=0.0).to(tl.float32)
    # Read in the shape of the rows, whose layout the product needs.
    weights = tl.load(weight + column + tl.zeros_like(latent).to(tl.int32), mask=inside, other=0.0).to(tl.float32)
    mean_square = tl.sum(latent * latent, axis=1, keep_dims=True) / LATENT
    store(
        target + column,
        latent * tl.rsqrt(mean_square + epsilon) * weights,
        _factor(scale),
        kept & inside,
        scale is not None,
    )


@triton.jit
def _rotate(source, target, token, present, kept, cos, sin, scale, HALF: tl.constexpr):
    parts = rotated(load_head(source, present, HALF, 0), load_angles(cos, sin, token, present, HALF))
    store_head(target, kept, parts, _factor(scale), HALF, 0, scale is not None)


@triton.jit
def _factor(scale):
    return 1.0 if scale is None else 1.0 / tl.load(scale)
