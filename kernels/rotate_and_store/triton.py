"""Norm, rotation and storage on a GPU, in one pass over the projection.

A program takes some *rows*: heads of consecutive tokens, either of queries or of keys with the values beside them::

    row        0       1       …  heads - 1   heads    …
    token      0       0          0           1
    head       0       1       …  heads - 1   0

Queries are rotated where they lie; keys and values are read there and written to the cache. So ``[tokens, (heads + 2 ·
kv_heads) · head_dim]`` is read once and as much is written: 8,192 tokens of 32 + 8 + 8 heads of 128 in bfloat16 move
201 MB, and 4 MB of angles. Less than 10 operations for each element: the floor is the bytes'.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.cache import LayerCache
from kernels.gpu import device_of, tile_shape
from kernels.rotate_and_store.norms import HeadNorms


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache, norms: HeadNorms | None
) -> Tensor:
    """See :func:`kernels.rotate_and_store.rotate_and_store`; the cache in the plain layout, its blocks contiguous."""
    tokens, width = qkv.shape
    head_dim, kv_heads, half = cache.head_dim, cache.kv_heads, cos.shape[1]
    heads = width // head_dim - 2 * kv_heads
    queries = qkv.view(tokens, -1, head_dim)[:, :heads]
    if not tokens:
        return queries
    tile = tile_shape("rotate_and_store", "rows", f"d{max(16, triton.next_power_of_2(head_dim))}", device_of(qkv))
    query_rows, key_rows = tile["rows"], tile["rows"] // 2
    query_stride, key_stride, num_warps = heads, kv_heads, tile["num_warps"]
    if norms is not None and norms.over_projection(head_dim):
        query_rows = query_stride = triton.next_power_of_2(heads)
        key_rows = key_stride = triton.next_power_of_2(kv_heads)
        num_warps = min(16, num_warps * max(1, query_rows // tile["rows"]))
    # Without a norm and a rotation, queries stay as they are.
    query_programs = triton.cdiv(tokens * query_stride, query_rows) if norms is not None or half else 0
    _rotate_and_store[(query_programs + triton.cdiv(tokens * key_stride, key_rows),)](
        qkv,
        cos,
        sin,
        slots,
        cache.key,
        cache.value,
        cache.key if cache.scales is None else cache.scales,
        qkv if norms is None else norms.query,
        qkv if norms is None else norms.key,
        0.0 if norms is None else norms.epsilon,
        tokens,
        query_programs,
        cache.key.stride(0),
        cache.value.stride(0),
        HEADS=heads,
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        HALF=half,
        BLOCK_SIZE=cache.block_size,
        QUERY_NORM=0 if norms is None else norms.query.numel(),
        KEY_NORM=0 if norms is None else norms.key.numel(),
        SCALED=cache.scales is not None,
        QUERY_ROWS=query_rows,
        KEY_ROWS=key_rows,
        QUERY_STRIDE=query_stride,
        KEY_STRIDE=key_stride,
        num_warps=num_warps,
        num_stages=tile["num_stages"],
    )
    return queries


@triton.jit  # type: ignore[untyped-decorator]
def _rotate_and_store(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    slots: tl.tensor,
    key_cache: tl.tensor,
    value_cache: tl.tensor,
    scales: tl.tensor,
    query_weight: tl.tensor,
    key_weight: tl.tensor,
    epsilon: tl.tensor,
    tokens: tl.tensor,
    query_programs: tl.tensor,
    key_block_stride: tl.tensor,
    value_block_stride: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    QUERY_NORM: tl.constexpr,
    KEY_NORM: tl.constexpr,
    SCALED: tl.constexpr,
    QUERY_ROWS: tl.constexpr,
    KEY_ROWS: tl.constexpr,
    QUERY_STRIDE: tl.constexpr,
    KEY_STRIDE: tl.constexpr,
) -> None:
    if tl.program_id(0) < query_programs:
        _rotate_queries(
            qkv, cos, sin, query_weight, epsilon, tokens,
            HEADS, KV_HEADS, HEAD_DIM, HALF, QUERY_NORM, QUERY_STRIDE, QUERY_ROWS,
        )  # fmt: skip
    else:
        _store_keys_and_values(
            tl.program_id(0) - query_programs, qkv, cos, sin, slots, key_cache, value_cache, scales, key_weight,
            epsilon, tokens, key_block_stride, value_block_stride,
            HEADS, KV_HEADS, HEAD_DIM, HALF, BLOCK_SIZE, KEY_NORM, SCALED, KEY_STRIDE, KEY_ROWS,
        )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator]
def _rotate_queries(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    weight: tl.tensor,
    epsilon: tl.tensor,
    tokens: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    NORM: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """What is not rotated stays where it is, unless it is normalised."""
    REST: tl.constexpr = HEAD_DIM - 2 * HALF if NORM else 0
    token, head, mask = _rows(tl.program_id(0), tokens, HEADS, STRIDE, ROWS)
    row = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * HEAD_DIM
    weight += head * HEAD_DIM * (NORM > HEAD_DIM)
    parts = turned(row, mask, cos + token * HALF, sin + token * HALF, weight, epsilon, HEAD_DIM, HALF, REST, NORM)
    store_head(row, mask, parts, 1.0, HALF, REST, False)


@triton.jit  # type: ignore[untyped-decorator]
def _store_keys_and_values(
    program: tl.tensor,
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    slots: tl.tensor,
    key_cache: tl.tensor,
    value_cache: tl.tensor,
    scales: tl.tensor,
    weight: tl.tensor,
    epsilon: tl.tensor,
    tokens: tl.tensor,
    key_block_stride: tl.tensor,
    value_block_stride: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    NORM: tl.constexpr,
    SCALED: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    REST: tl.constexpr = HEAD_DIM - 2 * HALF
    token, head, mask = _rows(program, tokens, KV_HEADS, STRIDE, ROWS)
    slot = tl.load(slots + token, mask=mask, other=-1)
    kept = mask & (slot >= 0)
    inside = (head * BLOCK_SIZE + slot % BLOCK_SIZE) * HEAD_DIM
    key_target = key_cache + slot // BLOCK_SIZE * key_block_stride + inside
    value_target = value_cache + slot // BLOCK_SIZE * value_block_stride + inside
    row = qkv + (token * (HEADS + 2 * KV_HEADS) + HEADS + head) * HEAD_DIM
    columns = tl.arange(0, triton.next_power_of_2(HEAD_DIM))[None, :]
    value_mask = kept & (columns < HEAD_DIM)
    value = tl.load(row + KV_HEADS * HEAD_DIM + columns, mask=value_mask)
    weight += head * HEAD_DIM * (NORM > HEAD_DIM)
    key = turned(row, mask, cos + token * HALF, sin + token * HALF, weight, epsilon, HEAD_DIM, HALF, REST, NORM)
    key_factor, value_factor = 1.0, 1.0
    if SCALED:
        key_factor = 1.0 / tl.load(scales + head, mask=mask, other=1.0)
        value_factor = 1.0 / tl.load(scales + KV_HEADS + head, mask=mask, other=1.0)
    store_head(key_target, kept, key, key_factor, HALF, REST, SCALED)
    store(value_target + columns, value, value_factor, value_mask, SCALED)


@triton.jit  # type: ignore[untyped-decorator]
def _rows(
    program: tl.tensor, tokens: tl.tensor, HEADS: tl.constexpr, STRIDE: tl.constexpr, ROWS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Token and head of each row of a program, and whether there are such: ``[ROWS, 1]`` each. ``STRIDE`` rows are a
    token's; those beyond its heads are empty."""
    row = program * ROWS + tl.arange(0, ROWS)[:, None]
    token, head = row // STRIDE, row % STRIDE
    return token.to(tl.int64), head, (token < tokens) & (head < HEADS)


@triton.jit  # type: ignore[untyped-decorator]
def turned(
    row: tl.tensor,
    mask: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    weight: tl.tensor,
    epsilon: tl.tensor,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    NORM: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Heads, normalised and rotated, in float32: the two halves of the pairs and the ``REST`` elements after them.

    ``[rows, 1]`` pointers say where each row's head, angles and weights begin. ``NORM`` is how many elements have a
    norm in common: ``HEAD_DIM`` or, all rows being one token's, more.
    """
    half, half_mask = _columns(mask, 0, HALF)
    rest, rest_mask = _columns(mask, 2 * HALF, REST)
    first, second = _load(row + half, half_mask), _load(row + HALF + half, half_mask)
    unturned = _load(row + rest, rest_mask)
    cosine, sine = _load(cos + half, half_mask), _load(sin + half, half_mask)
    if NORM:
        squares = tl.sum(first * first + second * second, axis=1, keep_dims=True)
        squares += tl.sum(unturned * unturned, axis=1, keep_dims=True)
        if NORM > HEAD_DIM:
            squares = tl.sum(squares, axis=0, keep_dims=True)
        scale = tl.rsqrt(squares / NORM + epsilon)
        first *= scale * _load(weight + half, half_mask)
        second *= scale * _load(weight + HALF + half, half_mask)
        unturned *= scale * _load(weight + rest, rest_mask)
    return first * cosine - second * sine, second * cosine + first * sine, unturned


@triton.jit  # type: ignore[untyped-decorator]
def store_head(
    row: tl.tensor,
    mask: tl.tensor,
    parts: tl.tuple,
    factor: tl.tensor,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    SCALED: tl.constexpr,
) -> None:
    """What :func:`turned` gives, to where ``row`` begins."""
    half, half_mask = _columns(mask, 0, HALF)
    rest, rest_mask = _columns(mask, 2 * HALF, REST)
    store(row + half, parts[0], factor, half_mask, SCALED)
    store(row + HALF + half, parts[1], factor, half_mask, SCALED)
    store(row + rest, parts[2], factor, rest_mask, SCALED)


@triton.jit  # type: ignore[untyped-decorator]
def _columns(mask: tl.tensor, START: tl.constexpr, COUNT: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """``[1, n]``: the columns from ``START`` on, ``n`` the power of two above ``COUNT``; and ``mask`` for that many."""
    columns = tl.arange(0, triton.next_power_of_2(COUNT) if COUNT else 1)[None, :]
    return START + columns, mask & (columns < COUNT)


@triton.jit  # type: ignore[untyped-decorator]
def _load(pointers: tl.tensor, mask: tl.tensor) -> tl.tensor:
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def store(pointers: tl.tensor, values: tl.tensor, factor: tl.tensor, mask: tl.tensor, SCALED: tl.constexpr) -> None:
    """With ``SCALED``, times ``factor`` and within the range of ``float8_e4m3fn``; what is not a number stays so."""
    if SCALED:
        values = tl.clamp(values.to(tl.float32) * factor, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(pointers, values.to(pointers.dtype.element_ty), mask=mask)
