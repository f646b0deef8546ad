"""From a schedule to the tensors that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.attention import PagedBatch
from serving_image.engine.block_table import BlockSpan
from serving_image.engine.step import ScheduledRequest
from serving_image.models.interface import ModelInput


def model_input(items: Sequence[ScheduledRequest], block_size: int, device: torch.device) -> ModelInput:
    """The batch of a step's items, one after another, on the device."""
    token_ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    slots: list[list[int]] = [[] for _ in items[0].blocks]
    for request, start, num_tokens, blocks, _ in items:
        stop = start + num_tokens
        token_ids += request.device_tokens[start:stop]
        positions += range(start, stop)
        in_prompt = max(0, min(stop, request.num_prompt_tokens) - start)
        lengths += [request.num_prompt_tokens] * in_prompt
        lengths += range(start + in_prompt + 1, stop + 1)
        for group, span in enumerate(blocks):
            slots[group] += _slots(span, start, stop, block_size)
    # One transfer to the device instead of many.
    tokens = torch.tensor([token_ids, positions, lengths, *slots]).to(device, non_blocking=True)
    starts = [0, *accumulate(item.num_tokens for item in items)]
    contexts = [item.start + item.num_tokens for item in items]
    query_starts = torch.tensor(starts, dtype=torch.int32).to(device, non_blocking=True)
    context_lengths = torch.tensor(contexts, dtype=torch.int32).to(device, non_blocking=True)
    tables = torch.from_numpy(_block_tables(items)).to(device, non_blocking=True)
    pagings = (PagedBatch(query_starts, context_lengths, *group) for group in zip(tables, tokens[3:], strict=True))
    return ModelInput(tokens[0], tokens[1], tokens[2], tuple(pagings))


def _slots(span: BlockSpan, start: int, stop: int, block_size: int) -> list[int]:
    slots: list[int] = []
    for index in range(start // block_size, -(-stop // block_size)):
        first = index * block_size
        offset = span.blocks[index - span.first] * block_size - first
        slots += range(max(start, first) + offset, min(stop, first + block_size) + offset)
    return slots


def _block_tables(items: Sequence[ScheduledRequest]) -> NDArray[np.int32]:
    """``[groups, items, blocks]``; what a window has left is 0."""
    longest = max(span.first + len(span.blocks) for item in items for span in item.blocks)
    tables = np.zeros((len(items[0].blocks), len(items), longest), dtype=np.int32)
    for index, item in enumerate(items):
        for group, (first, blocks) in enumerate(item.blocks):
            tables[group, index, first : first + len(blocks)] = blocks
    return tables
