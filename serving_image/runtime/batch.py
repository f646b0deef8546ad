"""From a schedule to the tensors that the decoder takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from kernels.attention import PagedBatch
from serving_image.engine.step import ScheduledRequest
from serving_image.models.decoder import DecoderInput


def decoder_input(items: Sequence[ScheduledRequest], block_size: int, device: torch.device) -> DecoderInput:
    """The batch of a step's items, one after another, on the device."""
    token_ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    slots: list[int] = []
    for request, start, num_tokens, blocks, _ in items:
        stop = start + num_tokens
        token_ids += request.device_tokens[start:stop]
        positions += range(start, stop)
        in_prompt = max(0, min(stop, request.num_prompt_tokens) - start)
        lengths += [request.num_prompt_tokens] * in_prompt
        lengths += range(start + in_prompt + 1, stop + 1)
        for index in range(start // block_size, -(-stop // block_size)):
            first = index * block_size
            offset = blocks[index] * block_size - first
            slots += range(max(start, first) + offset, min(stop, first + block_size) + offset)
    # One transfer to the device instead of four.
    tokens = torch.tensor([token_ids, positions, lengths, slots]).to(device, non_blocking=True)
    starts = [0, *accumulate(item.num_tokens for item in items)]
    contexts = [item.start + item.num_tokens for item in items]
    paging = PagedBatch(
        query_starts=torch.tensor(starts, dtype=torch.int32).to(device, non_blocking=True),
        context_lengths=torch.tensor(contexts, dtype=torch.int32).to(device, non_blocking=True),
        block_tables=torch.from_numpy(_block_tables(items)).to(device, non_blocking=True),
        slots=tokens[3],
    )
    return DecoderInput(tokens[0], tokens[1], tokens[2], paging)


def _block_tables(items: Sequence[ScheduledRequest]) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    tables = np.zeros((len(items), max(len(item.blocks) for item in items)), dtype=np.int32)
    for row, item in zip(tables, items, strict=True):
        row[: len(item.blocks)] = item.blocks
    return tables
