"""A step's inputs: one transfer of what changed, expanded on the device into memory that stays where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kernels.attention import PagedBatch
from kernels.attention.launch import LaunchPlan
from kernels.batch_inputs import BatchInputs, Item, ItemBlocks, RequestTables, StepSize, write_inputs
from serving_image.engine.step import ScheduledRequest
from serving_image.models.interface import ModelInput
from serving_image.runtime.gpu.request_rows import RequestRow
from serving_image.runtime.gpu.transfer import WordStream


class Sampled(NamedTuple):
    """Where a batch's rows are sampled, ``[items]`` each: :class:`kernels.batch_inputs.BatchInputs` says how."""

    rows: Tensor
    positions: Tensor
    last_tokens: Tensor


class StepInputs:
    """The memory for inputs that every step, and every CUDA graph, reads.

    :param max_items: the most requests of a step, rows that only fill a graph included.
    :param max_tokens: the most tokens of a step; no less than ``max_items``.
    """

    def __init__(self, tables: RequestTables, max_items: int, max_tokens: int, block_size: int) -> None:
        self._tables = tables
        self._block_size = block_size
        device = tables.blocks.device
        num_groups, _, max_blocks = tables.blocks.shape
        self._words = WordStream(device)

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._inputs = BatchInputs(
            token_ids=zeros(max_tokens, dtype=torch.int64),
            positions=zeros(max_tokens, dtype=torch.int64),
            sequence_lengths=zeros(max_tokens, dtype=torch.int64),
            slots=zeros(num_groups, max_tokens, dtype=torch.int64),
            query_starts=zeros(max_items + 1),
            context_lengths=zeros(max_items),
            block_tables=zeros(num_groups, max_items, max_blocks),
            sampled_rows=zeros(max_items),
            sampled_positions=zeros(max_items),
            last_tokens=zeros(max_items, dtype=torch.int64),
            split_tokens=zeros(1),
        )

    def write(
        self, items: Sequence[ScheduledRequest], rows: Sequence[RequestRow], padding: int, split_tokens: int
    ) -> None:
        """Launch what writes the inputs of these items, and tells the rows' tables of their new blocks.

        :raises ValueError: there is not as much memory.
        """
        words: list[int] = []
        new_blocks: list[int] = []
        query_start = extent = 0
        for (_, start, num_tokens, blocks, samples), row in zip(items, rows, strict=True):
            words += Item(row.index, start, num_tokens, query_start, int(samples))
            for span, first_new in zip(blocks, row.first_new_blocks(blocks), strict=True):
                words += ItemBlocks(span.first, first_new, len(new_blocks))
                new_blocks += span.blocks[first_new - span.first :]
            query_start += num_tokens
            extent = max(extent, num_tokens, blocks[0].first + len(blocks[0].blocks))
        if query_start + padding > len(self._inputs.token_ids):
            raise ValueError(f"a step of {query_start + padding} tokens in memory for {len(self._inputs.token_ids)}")
        sent = self._words.send([np.array(part, dtype=np.int32) for part in ([split_tokens], words, new_blocks)])
        write_inputs(sent, StepSize(len(items), padding, extent), self._block_size, self._tables, self._inputs)
        for item, row in zip(items, rows, strict=True):
            row.blocks = item.blocks

    def batch(self, num_items: int, num_tokens: int, plan: LaunchPlan) -> ModelInput:
        """The batch that was written last, rows of padding included; or any of that size, to be written later."""
        inputs = self._inputs
        launch = plan.launch(inputs.split_tokens)
        return ModelInput(
            token_ids=inputs.token_ids[:num_tokens],
            positions=inputs.positions[:num_tokens],
            sequence_lengths=inputs.sequence_lengths[:num_tokens],
            pagings=tuple(
                PagedBatch(
                    query_starts=inputs.query_starts[: num_items + 1],
                    context_lengths=inputs.context_lengths[:num_items],
                    block_tables=tables[:num_items],
                    slots=slots[:num_tokens],
                    launch=launch,
                )
                for tables, slots in zip(inputs.block_tables, inputs.slots, strict=True)
            ),
        )

    def sampled(self, num_items: int) -> Sampled:
        """Where the batch that was written last is sampled."""
        inputs = self._inputs
        return Sampled(
            inputs.sampled_rows[:num_items], inputs.sampled_positions[:num_items], inputs.last_tokens[:num_items]
        )
