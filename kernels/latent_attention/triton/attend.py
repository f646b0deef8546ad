# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Attention of some query rows of one sequence to part of its compressed rows."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from kernels.attention.triton.constants import Constants
from kernels.attention.triton.pages import cache_scale, operand
from kernels.attention.triton.softmax import LOG2E, LOWEST, add_values, inverse, weigh
from kernels.attention.triton.splits import split_length


@dataclass(frozen=True, slots=True)
class LatentConstants(Constants):
    """``head_dim`` is that of the latent.

    :ivar rope_dim: elements of a row after those.
    """

    rope_dim: int


@triton.jit(do_not_specialize=["table_stride", "skipped"])
def latent_kernel(
    output,
    partial,
    peaks,
    query,
    cache,
    scales,
    query_starts,
    context_lengths,
    block_tables,
    split_tokens,
    scale,
    skipped,
    block_stride,
    table_stride,
    C: tl.constexpr,
):
    """``rows`` neighbouring (token, head) pairs of a sequence, token by token, and one split of its context.

    Grid ``(cdiv(most tokens × heads, rows), sequences, splits)`` for the sequences after the first ``skipped``:
    programs that read the same rows run together, and of a sequence the last rows, which see most, begin first. With
    one split the output is written, else ``partial [sequences, heads, splits, latent_dim]`` and ``peaks [sequences,
    heads, splits]`` as :mod:`kernels.attention.triton.reduce` takes them.
    """
    sequence, split = tl.program_id(1) + skipped, tl.program_id(2)
    first_token = tl.load(query_starts + sequence)
    present_rows = (tl.load(query_starts + sequence + 1) - first_token) * C.group
    blocks = tl.cdiv(present_rows, C.rows)
    if tl.program_id(0) >= blocks:
        return
    context = tl.load(context_lengths + sequence)
    before = context - present_rows // C.group
    begin = (blocks - 1 - tl.program_id(0)) * C.rows
    row = begin + tl.arange(0, C.rows)
    start, stop = 0, tl.minimum(before + (begin + C.rows - 1) // C.group + 1, context)
    if C.splits > 1:
        length = split_length(split_tokens, context, C)
        start = split * length
        if start >= stop:
            return
        # The last split takes what is left, whatever the host planned.
        stop = tl.where(split == C.splits - 1, stop, tl.minimum(start + length, stop))

    cell = first_token.to(tl.int64) * C.group + row
    present = row < present_rows
    query_latent, query_rope, factor = _load_query(query, cell, present, scale * LOG2E * cache_scale(scales, 0, C), C)
    acc = tl.full([C.rows, C.head_dim], 0.0, tl.float32)
    peak = tl.full([C.rows], LOWEST, tl.float32)
    total = tl.full([C.rows], 0.0, tl.float32)
    table = block_tables + sequence.to(tl.int64) * table_stride
    newest = tl.minimum(before + row // C.group, stop - 1)[:, None]
    page = _page(table, start, stop, C)
    for at in tl.range(start, stop, C.tile):
        # Read a tile ahead, so that the copies of rows need not wait for it.
        next_page = _page(table, at + C.tile, stop, C)
        column = at + tl.arange(0, C.tile)
        tile = cache + page * block_stride + (at % C.page) * (C.head_dim + C.rope_dim)
        latent, rope = _load_rows(tile, (column < stop)[:, None], C)
        scores = tl.dot(query_rope, tl.trans(rope), input_precision=C.precision)
        scores = tl.dot(query_latent, tl.trans(latent), scores, input_precision=C.precision)
        # Tiles that every row sees whole would not need this, but a loop of their own costs the registers of two.
        scores = tl.where(column <= newest, scores, float("-inf"))
        weights, fade, peak, total = weigh(scores, factor, peak, total)
        acc = add_values(acc, fade, weights, latent, C)
        page = next_page

    result = acc * (cache_scale(scales, 0, C) * inverse(total))[:, None]
    if C.splits > 1:
        # Decodes: a row is a head.
        cell = (sequence.to(tl.int64) * C.group + row) * C.splits + split
        tl.store(peaks + cell, peak + tl.log2(total), mask=present)
        _store(partial, cell, result, present, C)
    else:
        _store(output, cell, result, present, C)


@triton.jit
def _store(target, cell, result, present, C):
    pointers = target + cell[:, None] * C.head_dim + tl.arange(0, C.head_dim)[None, :]
    tl.store(pointers, result, mask=present[:, None])


@triton.jit
def _load_query(query, cell, present, scale, C):
    """The program's rows, ``[rows, head_dim]`` and ``[rows, rope_dim]``, and by what each one's scores are to be
    multiplied, ``[rows]``. Beside a float8 cache products are of float16; so that bfloat16 loses nothing, rows are
    divided by the power of two of their largest element first, as :func:`kernels.attention.triton.softmax.load_query`
    does."""
    pointers = query + cell[:, None] * (C.head_dim + C.rope_dim)
    latent = tl.load(pointers + tl.arange(0, C.head_dim)[None, :], mask=present[:, None], other=0.0)
    rope = tl.load(pointers + C.head_dim + tl.arange(0, C.rope_dim)[None, :], mask=present[:, None], other=0.0)
    factor = tl.full([C.rows], 1.0, tl.float32) * scale
    if C.scaled:
        latent, rope = latent.to(tl.float32), rope.to(tl.float32)
        largest = tl.maximum(tl.maximum(tl.max(tl.abs(latent), 1), tl.max(tl.abs(rope), 1)), 1e-30)
        power = (largest.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
        latent, rope = (latent / power[:, None]).to(tl.float16), (rope / power[:, None]).to(tl.float16)
        factor = factor * power
    return latent, rope, factor


@triton.jit
def _page(table, start, stop, C):
    """The block of the tile at ``start``, which has no more tokens than a block."""
    return tl.load(table + start // C.page, mask=start < stop, other=0).to(tl.int64)


@triton.jit
def _load_rows(tile, inside, C):
    """``[tile, head_dim]`` and ``[tile, rope_dim]``; rows that are not ``inside`` hold anything and become zero."""
    row = tl.arange(0, C.tile)[:, None] * (C.head_dim + C.rope_dim)
    latent = tl.load(tile + row + tl.arange(0, C.head_dim)[None, :], mask=inside, other=0.0)
    rope = tl.load(tile + row + C.head_dim + tl.arange(0, C.rope_dim)[None, :], mask=inside, other=0.0)
    return operand(latent, C), operand(rope, C)
