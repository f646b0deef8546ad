"""Batch inputs by Triton.

One program per item, per ``block`` tokens or block-table entries of it, and per group. A decode of context ``c`` in
blocks of ``b`` moves ``8 c / b`` bytes for its block table and some 120 for the rest: 256 of them with 8,192 tokens in
blocks of 32 move 0.6 MB, so a step's inputs take no longer than it takes to launch them.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import gpu
from kernels.batch_inputs.layout import BLOCK_WORDS, ITEM_WORDS, BatchInputs, RequestTables, StepSize

_ITEM_WORDS = tl.constexpr(ITEM_WORDS)
_BLOCK_WORDS = tl.constexpr(BLOCK_WORDS)


def write_inputs(words: Tensor, size: StepSize, block_size: int, tables: RequestTables, inputs: BatchInputs) -> None:
    """See :func:`kernels.batch_inputs.write_inputs`."""
    shape = gpu.tile_shape("batch_inputs", "write_inputs", "any", gpu.device_of(words))
    groups, rows, max_blocks = tables.blocks.shape
    grid = (size.items + size.padding, triton.cdiv(size.extent, shape["block"]), groups)
    _write_inputs[grid](
        words,
        size.items,
        tables.tokens,
        tables.prompt_lengths,
        tables.blocks,
        inputs.token_ids,
        inputs.positions,
        inputs.sequence_lengths,
        inputs.slots,
        inputs.query_starts,
        inputs.context_lengths,
        inputs.block_tables,
        inputs.sampled_rows,
        inputs.sampled_positions,
        inputs.last_tokens,
        inputs.split_tokens,
        groups=groups,
        table_rows=rows,
        max_model_len=tables.tokens.shape[1],
        max_blocks=max_blocks,
        batch_items=inputs.block_tables.shape[1],
        batch_tokens=inputs.slots.shape[1],
        block_size=block_size,
        BLOCK=shape["block"],
        num_warps=shape["num_warps"],
    )


@triton.jit(do_not_specialize=["items"])  # type: ignore[untyped-decorator]
def _write_inputs(
    words: tl.tensor,
    items: int,
    tokens: tl.tensor,
    prompt_lengths: tl.tensor,
    blocks: tl.tensor,
    token_ids: tl.tensor,
    positions: tl.tensor,
    sequence_lengths: tl.tensor,
    slots: tl.tensor,
    query_starts: tl.tensor,
    context_lengths: tl.tensor,
    block_tables: tl.tensor,
    sampled_rows: tl.tensor,
    sampled_positions: tl.tensor,
    last_tokens: tl.tensor,
    split_tokens: tl.tensor,
    groups: tl.constexpr,
    table_rows: tl.constexpr,
    max_model_len: tl.constexpr,
    max_blocks: tl.constexpr,
    batch_items: tl.constexpr,
    batch_tokens: tl.constexpr,
    block_size: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    index = tl.program_id(0)
    chunk = tl.program_id(1)
    group = tl.program_id(2)
    ITEM: tl.constexpr = _ITEM_WORDS + groups * _BLOCK_WORDS
    if (index == 0) & (chunk == 0) & (group == 0):
        tl.store(split_tokens, tl.load(words))
        tl.store(query_starts, 0)
    last_item = words + 1 + tl.minimum(index, items - 1) * ITEM
    query_start = tl.load(last_item + 3)
    group_slots = slots + group * batch_tokens
    if index >= items:
        # Items that fill a graph are single tokens, so where theirs begin is known from their number.
        token = query_start + tl.load(last_item + 2) + index - items
        if chunk == 0:
            tl.store(group_slots + token, -1)
        if (chunk == 0) & (group == 0):
            tl.store(token_ids + token, 0)
            tl.store(positions + token, 0)
            tl.store(sequence_lengths + token, 1)
            _describe(index, token, 0, -1, query_starts, context_lengths, sampled_rows, sampled_positions, last_tokens)
    else:
        row = tl.load(last_item).to(tl.int64)
        start = tl.load(last_item + 1)
        num_tokens = tl.load(last_item + 2)
        stop = start + num_tokens
        item_blocks = last_item + _ITEM_WORDS + group * _BLOCK_WORDS
        first = tl.load(item_blocks)
        first_new = tl.load(item_blocks + 1)
        new = words + 1 + items * ITEM + tl.load(item_blocks + 2) - first_new
        row_blocks = blocks + (group * table_rows + row) * max_blocks
        batch_blocks = block_tables + (group * batch_items + index).to(tl.int64) * max_blocks
        if (chunk == 0) & (group == 0):
            sampled_row = tl.where(tl.load(last_item + 4) != 0, row.to(tl.int32), -1)
            last = query_start + num_tokens - 1
            _describe(
                index, last, stop, sampled_row, query_starts, context_lengths, sampled_rows, sampled_positions,
                last_tokens,
            )  # fmt: skip
        place = chunk * BLOCK + tl.arange(0, BLOCK)
        held = (place >= first) & (place < tl.cdiv(stop, block_size))
        entry = _block(place, held, first_new, row_blocks, new)
        tl.store(row_blocks + place, entry, mask=held & (place >= first_new))
        tl.store(batch_blocks + place, entry, mask=held)
        mine = place < num_tokens
        position = start + place
        # Other programs may be writing the table's new entries just now, so these are read where they come from.
        block = _block(position // block_size, mine, first_new, row_blocks, new)
        out = query_start + place
        tl.store(group_slots + out, block.to(tl.int64) * block_size + position % block_size, mask=mine)
        if group == 0:
            tl.store(token_ids + out, tl.load(tokens + row * max_model_len + position, mask=mine), mask=mine)
            tl.store(positions + out, position, mask=mine)
            length = tl.maximum(tl.load(prompt_lengths + row), position + 1)
            tl.store(sequence_lengths + out, length, mask=mine)


@triton.jit  # type: ignore[untyped-decorator]
def _describe(
    index: tl.tensor,
    last: tl.tensor,
    context: tl.tensor,
    sampled_row: tl.tensor,
    query_starts: tl.tensor,
    context_lengths: tl.tensor,
    sampled_rows: tl.tensor,
    sampled_positions: tl.tensor,
    last_tokens: tl.tensor,
) -> None:
    tl.store(query_starts + index + 1, last + 1)
    tl.store(context_lengths + index, context)
    tl.store(sampled_rows + index, sampled_row)
    tl.store(sampled_positions + index, context)
    tl.store(last_tokens + index, last)


@triton.jit  # type: ignore[untyped-decorator]
def _block(index: tl.tensor, mask: tl.tensor, first_new: tl.tensor, row_blocks: tl.tensor, new: tl.tensor) -> tl.tensor:
    """Blocks number ``index`` of a request's table: those from ``first_new`` on are among the step's words."""
    old = tl.load(row_blocks + index, mask=mask & (index < first_new), other=0)
    return tl.load(new + index, mask=mask & (index >= first_new), other=0) + old
