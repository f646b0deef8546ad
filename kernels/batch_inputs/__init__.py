"""Batch inputs, made on the device out of what changed since the step before: see ``layout.py``."""

from __future__ import annotations

from torch import Tensor

from kernels import gpu
from kernels.batch_inputs import reference
from kernels.batch_inputs.layout import (
    BLOCK_WORDS,
    ITEM_WORDS,
    BatchInputs,
    Item,
    ItemBlocks,
    RequestTables,
    StepSize,
)

__all__ = [
    "BLOCK_WORDS",
    "ITEM_WORDS",
    "BatchInputs",
    "Item",
    "ItemBlocks",
    "RequestTables",
    "StepSize",
    "write_inputs",
]


def write_inputs(words: Tensor, size: StepSize, block_size: int, tables: RequestTables, inputs: BatchInputs) -> None:
    """Expand a step's ``words`` into ``inputs``, and take its new blocks into ``tables``.

    :param words: int32, as drawn in :mod:`kernels.batch_inputs.layout`.
    :param block_size: tokens per block.
    :raises ValueError: the batch has more rows than ``inputs``.
    """
    rows, room = size.items + size.padding, inputs.context_lengths.shape[0]
    if rows > room:
        raise ValueError(f"a batch of {rows} rows in memory for {room}")
    if gpu.serves(words):
        from kernels.batch_inputs import triton as form

        form.write_inputs(words, size, block_size, tables, inputs)
    else:
        reference.write_inputs(words, size, block_size, tables, inputs)
