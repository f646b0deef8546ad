# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Attention of sequences with one query token: bound by reading their keys and values once.

Of a context of ``n`` tokens that is ``2 × n × kv_heads × head_dim`` elements, beside which queries and outputs
(``2 × heads × head_dim``) and the parts of splits (``8 × heads × head_dim`` bytes each, written and read) are small.
``4 × n × heads × head_dim`` operations, 4 for each byte at groups of 4 in bfloat16, are 50 times fewer than a Hopper
GPU can do meanwhile, so the rows of a program are filled up to the 16 that a tensor core's instruction has. Beside a
float8 cache they are filled up to 64 on Hopper: values reach that instruction through shared memory, converted, where
the one of 16 rows would have each thread gather them byte by byte.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.attention.triton.pages import cache_scale, load_tile, operand, page_numbers
from kernels.attention.triton.softmax import LOG2E, LOWEST, add_values, inverse, load_query, scores_of, weigh, with_sink
from kernels.attention.triton.splits import split_length, visible_from


@triton.jit(do_not_specialize=["table_stride"])
def decode_kernel(
    output,
    partial,
    peaks,
    query,
    key,
    value,
    scales,
    slopes,
    sinks,
    query_starts,
    context_lengths,
    block_tables,
    split_tokens,
    scale,
    token_stride,
    block_stride,
    table_stride,
    C: tl.constexpr,
):
    """One split of one sequence for up to ``rows`` query heads of one KV head.

    Grid ``(sequences, kv_heads × cdiv(group, rows), splits)``. With one split the output is written, else
    ``partial [sequences, heads, splits, head_dim]`` and ``peaks [sequences, heads, splits]``, the logarithm to base 2
    of the split's sum of exponentials; both float32.
    """
    sequence, split = tl.program_id(0), tl.program_id(2)
    parts: tl.constexpr = (C.group + C.rows - 1) // C.rows
    kv_head = tl.program_id(1) // parts
    token = tl.load(query_starts + sequence).to(tl.int64)
    if tl.load(query_starts + sequence + 1) == token:
        return
    stop = tl.load(context_lengths + sequence)
    context = stop
    first = visible_from(context, C)
    start = first // C.tile * C.tile
    if C.splits > 1:
        length = split_length(split_tokens, context - start, C)
        start += split * length
        if start >= context:
            return
        # The last split takes what is left, whatever the host planned.
        stop = tl.where(split == C.splits - 1, context, tl.minimum(start + length, context))

    member = tl.program_id(1) % parts * C.rows + tl.arange(0, C.rows)
    present = member < C.group
    head = kv_head * C.group + member
    rows, factor = load_query(
        query + token * token_stride + head * C.head_dim, present, scale * LOG2E * cache_scale(scales, kv_head, C), C
    )
    slope = tl.load(slopes + head, mask=present, other=0.0) * LOG2E if C.alibi else 0.0
    table = block_tables + sequence.to(tl.int64) * table_stride
    acc = tl.full([C.rows, C.padded_dim], 0.0, tl.float32)
    peak = tl.full([C.rows], LOWEST, tl.float32)
    total = tl.full([C.rows], 0.0, tl.float32)
    page = page_numbers(table, start, first, stop, C)
    for at in tl.range(start, stop, C.tile):
        next_page = page_numbers(table, at + C.tile, first, stop, C)
        position = at + tl.arange(0, C.tile)
        inside = (position >= first) & (position < stop)
        keys = operand(load_tile(key + kv_head * C.page * C.head_dim, page, at, inside, block_stride, C, True), C)
        values = operand(load_tile(value + kv_head * C.page * C.head_dim, page, at, inside, block_stride, C, True), C)
        scores, left = scores_of(rows, keys, factor, slope, (position - context + 1)[None, :], C)
        scores = tl.where(inside[None, :], scores, float("-inf"))
        weights, fade, peak, total = weigh(scores, left, peak, total)
        acc = add_values(acc, fade, weights, values, C)
        page = next_page

    value_scale = cache_scale(scales, C.kv_heads + kv_head, C)
    dim = tl.arange(0, C.padded_dim)
    stored = present[:, None] & (dim < C.head_dim)[None, :]
    if C.splits > 1:
        cell = (sequence.to(tl.int64) * (C.kv_heads * C.group) + head) * C.splits + split
        tl.store(partial + cell[:, None] * C.head_dim + dim[None, :], acc * (value_scale / total)[:, None], mask=stored)
        tl.store(peaks + cell, peak + tl.log2(total), mask=present)
    else:
        if C.sinks:
            fade, total = with_sink(peak, total, tl.load(sinks + head, mask=present, other=0.0) * LOG2E)
            value_scale = value_scale * fade
        cell = token * (C.kv_heads * C.group) + head
        result = acc * (value_scale * inverse(total))[:, None]
        tl.store(output + cell[:, None] * C.head_dim + dim[None, :], result, mask=stored)
