# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="untyped-decorator"
"""Attention of chunks of a prompt: bound by matrix products.

Of ``q`` queries at the end of a context of ``n`` tokens, each sees ``n - q + 1 … n`` keys: ``4 × heads × head_dim``
operations for each of the ``q × (n - (q - 1) / 2)`` pairs. A block of 128 rows reads all keys and values that it sees,
``2 × head_dim`` elements a token, so 64 operations are done for each byte that comes from the L2 cache (bfloat16).

On Hopper the assembler must see that nothing touches the sums of the values while a product is under way, or else waits
for each instruction (``ptxas`` says so: C7515; in the machine code every ``HGMMA`` is followed by
``WARPGROUP.DEPBAR``). Of Triton 3.7.1's code it sees that with ``num_stages`` 2 and 4, and not with 3.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.attention.triton.pages import cache_scale, load_tile, operand, page_numbers
from kernels.attention.triton.softmax import LOG2E, LOWEST, add_values, inverse, load_query, scores_of, weigh, with_sink


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
    value_scale = cache_scale(scales, C.kv_heads + kv_head, C)
    if C.sinks:
        fade, total = with_sink(peak, total, tl.load(sinks + head, mask=present, other=0.0) * LOG2E)
        value_scale = value_scale * fade
    result = acc * (value_scale * inverse(total))[:, None]
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
    """Tiles from ``begin`` to ``end``; no key outside ``first … stop - 1`` is read.

    A tile's values are added a step late, so that the tensor cores have that product to do while a tile's exponentials
    are computed::

        tensor cores    keys 0            keys 1   values 0      keys 2   values 1
        exponentials             tile 0            tile 1                 tile 2

    Weights wait as whole numbers of as many bits: as what they are, the compiler would send them through shared memory.
    The first step adds nothing.
    """
    waiting: tl.constexpr = tl.int32 if key.dtype.element_ty == tl.float32 else tl.int16
    weights = tl.full([C.rows, C.tile], 0, waiting)
    fade = tl.full([C.rows], 1.0, tl.float32)
    page = page_numbers(table, begin, first, stop, C)
    # Not `= page`, here or in the loop: the compiler does not carry a name through a loop that comes with another's
    # value, and does not pipeline what is carried through two steps.
    late_page = page_numbers(table, begin, first, stop, C)
    for at in tl.range(begin, end, C.tile):
        next_late_page = page_numbers(table, at, first, stop, C)
        next_page = page_numbers(table, at + C.tile, first, stop, C)
        keys = _tile(key, page, at, first, stop, block_stride, C, MASKED)
        distance = (at + tl.arange(0, C.tile))[None, :] - position[:, None]
        scores, left = scores_of(query, keys, factor, slope, distance, C)
        values = _tile(value, late_page, tl.maximum(at - C.tile, begin), first, stop, block_stride, C, MASKED)
        acc = add_values(acc, fade, weights.to(values.dtype, bitcast=True), values, C)
        if MASKED:
            visible = distance <= 0
            if C.window is not None:
                visible &= distance > -C.window
            scores = tl.where(visible, scores, float("-inf"))
        weights, fade, peak, total = weigh(scores, left, peak, total)
        weights = weights.to(values.dtype).to(waiting, bitcast=True)
        late_page, page = next_late_page, next_page
    last = begin + (tl.cdiv(end - begin, C.tile) - 1) * C.tile
    values = _tile(value, late_page, last, first, tl.where(begin < end, stop, 0), block_stride, C, True)
    return add_values(acc, fade, weights.to(values.dtype, bitcast=True), values, C), peak, total


@triton.jit
def _tile(cache, page, at, first, stop, block_stride, C, MASKED: tl.constexpr):
    """Keys or values, as a product wants them."""
    token = at + tl.arange(0, C.tile)
    inside = (token >= first) & (token < stop)
    return operand(load_tile(cache, page, at, inside, block_stride, C, MASKED), C)
