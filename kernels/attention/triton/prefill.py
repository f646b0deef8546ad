# mypy: allow-untyped-defs, disable-error-code="untyped-decorator"
"""Attention of chunks of a prompt: bound by matrix products."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.attention.triton.pages import cache_scale, load_tile, operand, page_numbers
from kernels.attention.triton.softmax import LOG2E, LOWEST, attend, finished, load_query, scores_of


@triton.jit(do_not_specialize=["table_stride", "decodes"])
def prefill_kernel(
    output,
    query,
    key,
    value,
    scales,
    slopes,
    sinks,
    query_starts,
    context_lengths,
    block_tables,
    scale,
    decodes,
    token_stride,
    block_stride,
    table_stride,
    C: tl.constexpr,
):
    """``rows`` neighbouring (token, head of the group) pairs of one sequence and KV head, token by token.

    Grid ``(sequences, cdiv(most tokens × group, rows), kv_heads)``: the last blocks of all sequences, which see most
    keys, begin first, so that the short ones are left for the end. KV heads are outermost: programs that run together
    read the same keys, out of the L2 cache.
    """
    sequence = tl.program_id(0) + decodes
    kv_head = tl.program_id(2)
    first_token = tl.load(query_starts + sequence)
    count = tl.load(query_starts + sequence + 1) - first_token
    blocks = tl.cdiv(count * C.group, C.rows)
    if tl.program_id(1) >= blocks:
        return
    before = tl.load(context_lengths + sequence) - count
    begin = (blocks - 1 - tl.program_id(1)) * C.rows
    row = begin + tl.arange(0, C.rows)
    token, head = row // C.group, kv_head * C.group + row % C.group
    present = token < count
    place = (first_token + token).to(tl.int64)
    rows, factor = load_query(
        query + place * token_stride + head * C.head_dim, present, scale * LOG2E * cache_scale(scales, kv_head, C), C
    )
    slope = tl.load(slopes + head, mask=present, other=0.0) * LOG2E if C.alibi else 0.0
    oldest = before + begin // C.group
    newest = before + tl.minimum((begin + C.rows - 1) // C.group, count - 1)
    acc, peak, total = _all_tiles(
        rows,
        factor,
        slope,
        before + token,
        oldest,
        newest,
        key + kv_head * C.page * C.head_dim,
        value + kv_head * C.page * C.head_dim,
        block_tables + sequence.to(tl.int64) * table_stride,
        block_stride,
        C,
    )
    sink = tl.load(sinks + head, mask=present, other=0.0) * LOG2E if C.sinks else 0.0
    result = finished(acc, peak, total, sink, cache_scale(scales, C.kv_heads + kv_head, C), C)
    dim = tl.arange(0, C.padded_dim)
    cell = place * (C.kv_heads * C.group) + head
    stored = present[:, None] & (dim < C.head_dim)[None, :]
    tl.store(output + cell[:, None] * C.head_dim + dim[None, :], result, mask=stored)


@triton.jit
def _all_tiles(query, factor, slope, position, oldest, newest, key, value, table, block_stride, C):
    """Every tile that a row sees, in three runs; only the middle one, which every row sees whole, needs no mask::

        keys      first          newest - window          oldest          newest
                  │   left edge  │                        │   diagonal    │
        oldest    0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 - - - - - - - -
        newest    - - - - - - - - 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
    """
    acc = tl.full([C.rows, C.padded_dim], 0.0, tl.float32)
    peak = tl.full([C.rows], LOWEST, tl.float32)
    total = tl.full([C.rows], 0.0, tl.float32)
    stop = newest + 1
    diagonal = (oldest + 1) // C.tile * C.tile
    first, inner = 0, 0
    if C.window is not None:
        first = tl.maximum(oldest - C.window + 1, 0)
        inner = tl.minimum(tl.cdiv(tl.maximum(newest - C.window + 1, 0), C.tile) * C.tile, diagonal)
        acc, peak, total = _tiles(
            acc, peak, total, query, factor, slope, position, key, value, table, block_stride,
            first // C.tile * C.tile, inner, first, stop, C, True,
        )  # fmt: skip
    acc, peak, total = _tiles(
        acc, peak, total, query, factor, slope, position, key, value, table, block_stride,
        inner, diagonal, first, stop, C, False,
    )  # fmt: skip
    return _tiles(
        acc, peak, total, query, factor, slope, position, key, value, table, block_stride,
        diagonal, stop, first, stop, C, True,
    )  # fmt: skip


@triton.jit
def _tiles(
    acc, peak, total, query, factor, slope, position, key, value, table, block_stride,
    begin, end, first, stop, C, MASKED: tl.constexpr,
):  # fmt: skip
    """Tiles from ``begin`` to ``end``; no key outside ``first … stop - 1`` is read."""
    page = page_numbers(table, begin, first, stop, C)
    for at in tl.range(begin, end, C.tile):
        next_page = page_numbers(table, at + C.tile, first, stop, C)
        column = at + tl.arange(0, C.tile)
        inside = (column >= first) & (column < stop)
        keys = operand(load_tile(key, page, at, inside, block_stride, C, MASKED), C)
        values = operand(load_tile(value, page, at, inside, block_stride, C, MASKED), C)
        distance = column[None, :] - position[:, None]
        scores, left = scores_of(query, keys, factor, slope, distance, C)
        if MASKED:
            visible = distance <= 0
            if C.window is not None:
                visible &= distance > -C.window
            scores = tl.where(visible, scores, float("-inf"))
        acc, peak, total = attend(acc, peak, total, scores, left, values, C)
        page = next_page
    return acc, peak, total
