"""Steps in which every request runs one token, replayed from programs that were recorded once for each batch size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.attention import LayerCache, PagedBatch
from kernels.attention.native import stores
from kernels.native.program import Arena, Program
from serving_image.engine.step import ScheduledRequest
from serving_image.models.decoder import Decoder, DecoderInput
from serving_image.models.rotary import Rotation

_MAX_ROWS = 128
"""In larger batches the kernels take so long that what Python does between them does not count."""


class _Recorded(NamedTuple):
    """A program, and the parts of the inputs that it reads."""

    batch: DecoderInput
    hidden: Tensor
    rotation: Rotation
    program: Program


class DecodePrograms:
    """The decoder's layers for batches of single tokens, on inputs that stay in one place.

    :param max_blocks: blocks of the longest context.
    """

    def __init__(self, decoder: Decoder, caches: list[LayerCache], max_blocks: int) -> None:
        config, device = decoder.config, decoder.device
        self._decoder = decoder
        self._caches = caches
        self._block_size = caches[0].block_size
        self._usable = stores(caches[0])
        self._recorded: dict[int, _Recorded] = {}
        self._arena = Arena(_workspace_bytes(decoder) if self._usable else 0)
        self._hidden = torch.empty((_MAX_ROWS, config.hidden_size), dtype=decoder.dtype, device=device)
        half = config.rotary.head_dim // 2
        self._rotation = Rotation(torch.empty(_MAX_ROWS, half), torch.empty(_MAX_ROWS, half))
        self._token_ids, self._positions, self._lengths, slots = torch.zeros((4, _MAX_ROWS), dtype=torch.int64)
        self._paging = PagedBatch(
            query_starts=torch.arange(_MAX_ROWS + 1, dtype=torch.int32),
            context_lengths=torch.zeros(_MAX_ROWS, dtype=torch.int32),
            block_tables=torch.zeros((_MAX_ROWS, max_blocks), dtype=torch.int32),
            slots=slots,
        )

    def covers(self, items: Sequence[ScheduledRequest]) -> bool:
        """Whether these are single tokens, few enough, on a device that can replay."""
        return self._usable and len(items) <= _MAX_ROWS and all(item.num_tokens == 1 for item in items)

    def forward(self, items: Sequence[ScheduledRequest]) -> Tensor:
        """Final hidden states, ``[requests, hidden]``; they last until the next call."""
        self._fill(items)
        recorded = self._recorded.get(len(items))
        if recorded is None:
            return self._record(len(items))
        self._decoder.prepare(recorded.batch, recorded.hidden, recorded.rotation)
        return recorded.program.replay()

    def _record(self, rows: int) -> Tensor:
        batch, hidden = self._batch(rows), self._hidden[:rows]
        rotation = Rotation(*(part[:rows] for part in self._rotation))
        self._decoder.prepare(batch, hidden, rotation)
        program = Program(partial(self._decoder.layers, hidden, rotation, batch.paging, self._caches), self._arena)
        self._recorded[rows] = _Recorded(batch, hidden, rotation, program)
        return program.output

    def _fill(self, items: Sequence[ScheduledRequest]) -> None:
        token_ids, positions, lengths = (part.numpy() for part in (self._token_ids, self._positions, self._lengths))
        contexts, tables = self._paging.context_lengths.numpy(), self._paging.block_tables.numpy()
        slots, block_size = self._paging.slots.numpy(), self._block_size
        for row, (request, start, _, blocks, _) in enumerate(items):
            token_ids[row] = request.device_tokens[start]
            positions[row] = start
            lengths[row] = max(request.num_prompt_tokens, start + 1)
            contexts[row] = start + 1
            tables[row, : len(blocks)] = blocks
            slots[row] = blocks[-1] * block_size + start % block_size

    def _batch(self, rows: int) -> DecoderInput:
        paging = self._paging
        return DecoderInput(
            token_ids=self._token_ids[:rows],
            positions=self._positions[:rows],
            sequence_lengths=self._lengths[:rows],
            paging=PagedBatch(
                paging.query_starts[: rows + 1],
                paging.context_lengths[:rows],
                paging.block_tables[:rows],
                paging.slots[:rows],
            ),
        )


def _workspace_bytes(decoder: Decoder) -> int:
    """Room for the results that are alive at once in a layer, twice over: between them pieces may lie unused."""
    config = decoder.config
    widths = 4 * config.hidden_size + config.qkv_size + config.query_size + 3 * config.intermediate_size
    return 2 * _MAX_ROWS * widths * decoder.dtype.itemsize
