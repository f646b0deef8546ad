"""Batch inputs, token by token."""

from __future__ import annotations

from torch import Tensor

from kernels.batch_inputs.layout import BLOCK_WORDS, ITEM_WORDS, BatchInputs, Item, ItemBlocks, RequestTables, StepSize


def write_inputs(words: Tensor, size: StepSize, block_size: int, tables: RequestTables, inputs: BatchInputs) -> None:
    """See :func:`kernels.batch_inputs.write_inputs`."""
    values = words.tolist()
    inputs.split_tokens[0] = values[0]
    inputs.query_starts[0] = 0
    stride = ITEM_WORDS + len(tables.blocks) * BLOCK_WORDS
    new_blocks = values[1 + size.items * stride :]
    token = 0
    for index in range(size.items):
        mine = values[1 + index * stride : 1 + (index + 1) * stride]
        item = Item(*mine[:ITEM_WORDS])
        for group in range(len(tables.blocks)):
            blocks = ItemBlocks(*mine[ITEM_WORDS + group * BLOCK_WORDS :][:BLOCK_WORDS])
            _take_in(new_blocks, item, blocks, block_size, tables.blocks[group])
            _place(index, item, blocks, block_size, tables.blocks[group], inputs, group)
        for position in range(item.start, item.start + item.num_tokens):
            inputs.token_ids[token] = tables.tokens[item.row, position]
            inputs.positions[token] = position
            inputs.sequence_lengths[token] = max(int(tables.prompt_lengths[item.row]), position + 1)
            token += 1
        inputs.query_starts[index + 1] = token
        inputs.context_lengths[index] = item.start + item.num_tokens
        inputs.sampled_rows[index] = item.row if item.samples else -1
        inputs.sampled_positions[index] = item.start + item.num_tokens
        inputs.last_tokens[index] = token - 1
    for index in range(size.items, size.items + size.padding):
        _pad(index, token, inputs)
        token += 1


def _take_in(new_blocks: list[int], item: Item, blocks: ItemBlocks, block_size: int, table: Tensor) -> None:
    for index in range(blocks.first_new, -(-(item.start + item.num_tokens) // block_size)):
        table[item.row, index] = new_blocks[blocks.new_blocks + index - blocks.first_new]


def _place(
    index: int, item: Item, blocks: ItemBlocks, block_size: int, table: Tensor, inputs: BatchInputs, group: int
) -> None:
    stop = item.start + item.num_tokens
    held = slice(blocks.first, -(-stop // block_size))
    inputs.block_tables[group, index, held] = table[item.row, held]
    for token, position in enumerate(range(item.start, stop), item.query_start):
        block = int(table[item.row, position // block_size])
        inputs.slots[group, token] = block * block_size + position % block_size


def _pad(index: int, token: int, inputs: BatchInputs) -> None:
    inputs.token_ids[token] = 0
    inputs.positions[token] = 0
    inputs.sequence_lengths[token] = 1
    inputs.slots[:, token] = -1
    inputs.query_starts[index + 1] = token + 1
    inputs.context_lengths[index] = 0
    inputs.sampled_rows[index] = -1
    inputs.sampled_positions[index] = 0
    inputs.last_tokens[index] = token
