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
from kernels.gpu import device_of
from kernels.rotate_and_store.constants import launch_constants
from kernels.rotate_and_store.norms import HeadNorms


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, cache: LayerCache, norms: HeadNorms | None
) -> Tensor:
    """See :func:`kernels.rotate_and_store.rotate_and_store`; the cache in the plain layout, its blocks contiguous."""
    tokens, half = cos.shape
    heads = qkv.shape[1] // cache.head_dim - 2 * cache.kv_heads
    queries = qkv.view(tokens, heads + 2 * cache.kv_heads, cache.head_dim)[:, :heads]
    if not tokens:
        return queries
    constants, options = launch_constants(heads, cache, half, norms, device_of(qkv))
    # Without a norm and a rotation, queries stay as they are.
    turned_rows = tokens * constants.query_stride if norms is not None or half else 0
    query_programs = triton.cdiv(turned_rows, constants.query_rows)
    key_programs = triton.cdiv(tokens * constants.key_stride, constants.key_rows)
    _rotate_and_store[(query_programs + key_programs,)](
        qkv,
        cos,
        sin,
        slots,
        cache.key,
        cache.value,
        cache.scales,
        *(None, None, None, None, 0.0)
        if norms is None
        else (norms.query, norms.key, norms.query_bias, norms.key_bias, norms.epsilon),
        tokens,
        query_programs,
        cache.key.stride(0),
        cache.value.stride(0),
        constants,
        **options,
    )
    return queries


@triton.jit(do_not_specialize=["tokens", "query_programs"])  # type: ignore[untyped-decorator]
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
    query_bias: tl.tensor,
    key_bias: tl.tensor,
    epsilon: tl.tensor,
    tokens: tl.tensor,
    query_programs: tl.tensor,
    key_block_stride: tl.tensor,
    value_block_stride: tl.tensor,
    C: tl.constexpr,
) -> None:
    if tl.program_id(0) < query_programs:
        token, head, mask = _rows(tl.program_id(0), tokens, C.heads, C.query_stride, C.query_rows)
        _rotate_queries(qkv, cos, sin, query_weight, query_bias, epsilon, token, head, mask, C)
    else:
        program = tl.program_id(0) - query_programs
        key_token, key_head, key_mask = _rows(program, tokens, C.kv_heads, C.key_stride, C.key_rows)
        slot = tl.load(slots + key_token, mask=key_mask, other=-1)
        inside = (key_head * C.page + slot % C.page) * C.head_dim
        key_target = key_cache + slot // C.page * key_block_stride + inside
        value_target = value_cache + slot // C.page * value_block_stride + inside
        _store_keys_and_values(
            qkv, cos, sin, key_weight, key_bias, epsilon, scales, key_target, value_target, key_token, key_head,
            key_mask, slot >= 0, C,
        )  # fmt: skip


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
def _rotate_queries(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    epsilon: tl.tensor,
    token: tl.tensor,
    head: tl.tensor,
    mask: tl.tensor,
    C: tl.constexpr,
) -> None:
    """In place: what is not rotated stays as it is, unless it is normalised."""
    REST: tl.constexpr = C.head_dim - 2 * C.half if C.query_norm else 0
    row = qkv + (token * (C.heads + 2 * C.kv_heads) + head) * C.head_dim
    parts = load_head(row, mask, C.half, REST)
    own = head * C.head_dim if C.own_query_weights else 0
    parts = _turned(parts, mask, cos, sin, token, weight, bias, own, epsilon, REST, C.query_norm, C)
    store_head(row, mask, parts, 1.0, C.half, REST, False)


@triton.jit  # type: ignore[untyped-decorator]
def _store_keys_and_values(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    epsilon: tl.tensor,
    scales: tl.tensor,
    key_target: tl.tensor,
    value_target: tl.tensor,
    token: tl.tensor,
    head: tl.tensor,
    mask: tl.tensor,
    kept: tl.tensor,
    C: tl.constexpr,
) -> None:
    """Only rows that are ``kept`` are stored."""
    REST: tl.constexpr = C.head_dim - 2 * C.half
    row = qkv + (token * (C.heads + 2 * C.kv_heads) + C.heads + head) * C.head_dim
    columns = tl.arange(0, triton.next_power_of_2(C.head_dim))[None, :]
    value_mask = kept & (columns < C.head_dim)
    value = tl.load(row + C.kv_heads * C.head_dim + columns, mask=value_mask)
    own = head * C.head_dim if C.own_key_weights else 0
    key = load_head(row, mask, C.half, REST)
    key = _turned(key, mask, cos, sin, token, weight, bias, own, epsilon, REST, C.key_norm, C)
    key_factor, value_factor = 1.0, 1.0
    if scales is not None:
        key_factor = 1.0 / tl.load(scales + head, mask=mask, other=1.0)
        value_factor = 1.0 / tl.load(scales + C.kv_heads + head, mask=mask, other=1.0)
    store_head(key_target, kept, key, key_factor, C.half, REST, scales is not None)
    store(value_target + columns, value, value_factor, value_mask, scales is not None)


@triton.jit  # type: ignore[untyped-decorator]
def _turned(
    parts: tl.tuple,
    mask: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    token: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    own: tl.tensor,
    epsilon: tl.tensor,
    REST: tl.constexpr,
    NORM: tl.constexpr,
    C: tl.constexpr,
) -> tl.tuple:
    """Norm and rotation of what :func:`load_head` gave; ``own`` is where a head's weights begin."""
    angles = load_angles(cos, sin, token, mask, C.half)
    if NORM and not C.norm_after:
        parts = _normalised(parts, mask, weight, bias, own, epsilon, REST, NORM, C)
    parts = rotated(parts, angles)
    if NORM and C.norm_after:
        parts = _normalised(parts, mask, weight, bias, own, epsilon, REST, NORM, C)
    return parts


@triton.jit  # type: ignore[untyped-decorator]
def load_head(
    row: tl.tensor, mask: tl.tensor, HALF: tl.constexpr, REST: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Heads in float32: the two halves of their pairs and the ``REST`` elements after them. ``row`` and ``mask`` are
    ``[rows, 1]``."""
    half, half_mask = _columns(mask, 0, HALF)
    rest, rest_mask = _columns(mask, 2 * HALF, REST)
    return _load(row + half, half_mask), _load(row + HALF + half, half_mask), _load(row + rest, rest_mask)


@triton.jit  # type: ignore[untyped-decorator]
def load_angles(
    cos: tl.tensor, sin: tl.tensor, token: tl.tensor, mask: tl.tensor, HALF: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Cosine and sine of each row's token, ``[rows, 1]``."""
    half, half_mask = _columns(mask, 0, HALF)
    return _load(cos + token * HALF + half, half_mask), _load(sin + token * HALF + half, half_mask)


@triton.jit  # type: ignore[untyped-decorator]
def rotated(parts: tl.tuple, angles: tl.tuple) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Of :func:`load_head` and :func:`load_angles`."""
    first, second, rest = parts
    cosine, sine = angles
    return first * cosine - second * sine, second * cosine + first * sine, rest


@triton.jit  # type: ignore[untyped-decorator]
def _normalised(
    parts: tl.tuple,
    mask: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    own: tl.tensor,
    epsilon: tl.tensor,
    REST: tl.constexpr,
    NORM: tl.constexpr,
    C: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """``NORM`` is how many elements have their moments in common: a head's or, all rows being one token's, more."""
    half, half_mask = _columns(mask, 0, C.half)
    rest, rest_mask = _columns(mask, 2 * C.half, REST)
    first, second, unturned = parts
    if C.layer_norm:
        mean = _summed(first + second, unturned, NORM, C) / NORM
        first = tl.where(half_mask, first - mean, 0.0)
        second = tl.where(half_mask, second - mean, 0.0)
        unturned = tl.where(rest_mask, unturned - mean, 0.0)
    squares = _summed(first * first + second * second, unturned * unturned, NORM, C)
    scale = tl.rsqrt(squares / NORM + epsilon)
    first *= scale * _load(weight + own + half, half_mask)
    second *= scale * _load(weight + own + C.half + half, half_mask)
    unturned *= scale * _load(weight + own + rest, rest_mask)
    if bias is not None:
        first += _load(bias + own + half, half_mask)
        second += _load(bias + own + C.half + half, half_mask)
        unturned += _load(bias + own + rest, rest_mask)
    return first, second, unturned


@triton.jit  # type: ignore[untyped-decorator]
def _summed(pairs: tl.tensor, rest: tl.tensor, NORM: tl.constexpr, C: tl.constexpr) -> tl.tensor:
    """Of each row, or of all."""
    total = tl.sum(pairs, axis=1, keep_dims=True) + tl.sum(rest, axis=1, keep_dims=True)
    return tl.sum(total, axis=0, keep_dims=True) if C.head_dim < NORM else total


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
    """What :func:`load_head` gave, to where ``row`` begins."""
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
