"""Batch inputs, token by token."""

from __future__ import annotations

from torch import Tensor

from kernels.batch_inputs.layout import ITEM_WORDS, BatchInputs, Item, RequestTables, StepSize


def write_inputs(words: Tensor, size: StepSize, block_size: int, tables: RequestTables, inputs: BatchInputs) -> None:
    """See :func:`kernels.batch_inputs.write_inputs`."""
    values = words.tolist()
    inputs.split_tokens[0] = values[0]
    inputs.query_starts[0] = 0
    token = 0
    for index in range(size.items):
        item = Item(*values[1 + index * ITEM_WORDS : 1 + (index + 1) * ITEM_WORDS])
        stop = item.start + item.num_tokens
        blocks = -(-stop // block_size)
        new = 1 + size.items * ITEM_WORDS + item.new_blocks
        for block in range(item.first_new_block, blocks):
            tables.blocks[item.row, block] = values[new + block - item.first_new_block]
        inputs.block_tables[index, :blocks] = tables.blocks[item.row, :blocks]
        for position in range(item.start, stop):
            inputs.token_ids[token] = tables.tokens[item.row, position]
            inputs.positions[token] = position
            inputs.sequence_lengths[token] = max(int(tables.prompt_lengths[item.row]), position + 1)
            block = int(tables.blocks[item.row, position // block_size])
            inputs.slots[token] = block * block_size + position % block_size
            token += 1
        inputs.query_starts[index + 1] = token
        inputs.context_lengths[index] = stop
        inputs.sampled_rows[index] = item.row if item.samples else -1
        inputs.sampled_positions[index] = stop
        inputs.last_tokens[index] = token - 1
    for index in range(size.items, size.items + size.padding):
        _pad(index, token, inputs)
        token += 1


def _pad(index: int, token: int, inputs: BatchInputs) -> None:
    inputs.token_ids[token] = 0
    inputs.positions[token] = 0
    inputs.sequence_lengths[token] = 1
    inputs.slots[token] = -1
    inputs.query_starts[index + 1] = token + 1
    inputs.context_lengths[index] = 0
    inputs.sampled_rows[index] = -1
    inputs.sampled_positions[index] = 0
    inputs.last_tokens[index] = token
