"""Steps in which every request runs one token, replayed from programs that were recorded once for each batch size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.attention import LayerCache, PagedBatch
from kernels.attention.native import stores
from kernels.native.program import Arena, NotRecordable, Program
from serving_image.engine.step import ScheduledRequest
from serving_image.models.decoder import Decoder
from serving_image.models.interface import AttentionCache, ModelInput
from serving_image.models.rotary import Rotation

logger = logging.getLogger(__name__)

_MAX_ROWS = 128
"""In larger batches the kernels take so long that what Python does between them does not count."""


class _Recorded(NamedTuple):
    """A program, and the parts of the inputs that it reads."""

    batch: ModelInput
    hidden: Tensor
    rotations: list[Rotation]
    program: Program


class DecodePrograms:
    """The decoder's layers for batches of single tokens, on inputs that stay in one place.

    :param max_blocks: blocks of the longest context.
    """

    def __init__(self, decoder: Decoder, caches: Sequence[AttentionCache], max_blocks: int) -> None:
        config, device = decoder.config, decoder.device
        self._decoder = decoder
        self._caches = caches
        self._block_size = caches[0].block_size
        self._usable = all(isinstance(cache, LayerCache) and stores(cache) for cache in caches)
        self._recorded: dict[int, _Recorded] = {}
        self._arena = Arena(_workspace_bytes(decoder) if self._usable else 0)
        self._hidden = torch.empty((_MAX_ROWS, config.hidden_size), dtype=decoder.dtype, device=device)
        self._rotations = decoder.empty_rotations(_MAX_ROWS)
        self._token_ids, self._positions, self._lengths = torch.zeros((3, _MAX_ROWS), dtype=torch.int64)
        self._query_starts = torch.arange(_MAX_ROWS + 1, dtype=torch.int32)
        self._contexts = torch.zeros(_MAX_ROWS, dtype=torch.int32)
        num_groups = len(config.cache_layout.groups)
        self._tables = torch.zeros((num_groups, _MAX_ROWS, max_blocks), dtype=torch.int32)
        self._slots = torch.zeros((num_groups, _MAX_ROWS), dtype=torch.int64)

    def covers(self, items: Sequence[ScheduledRequest]) -> bool:
        """Whether these are single tokens, few enough, of a model on a device that can replay."""
        return self._usable and len(items) <= _MAX_ROWS and all(item.num_tokens == 1 for item in items)

    def forward(self, items: Sequence[ScheduledRequest]) -> Tensor:
        """Final hidden states, ``[requests, hidden]``; they last until the next call."""
        self._fill(items)
        recorded = self._recorded.get(len(items))
        if recorded is None:
            return self._record(len(items))
        self._decoder.prepare(recorded.batch, recorded.hidden, recorded.rotations)
        return recorded.program.replay()

    def _record(self, rows: int) -> Tensor:
        batch, hidden = self._batch(rows), self._hidden[:rows]
        rotations = [Rotation(*(part[:rows] for part in rotation)) for rotation in self._rotations]
        self._decoder.prepare(batch, hidden, rotations)
        compute = partial(self._decoder.layers, hidden, rotations, batch.pagings, self._caches)
        try:
            program = Program(compute, self._arena)
        except (NotRecordable, MemoryError) as error:
            logger.info("decoding is not recorded: %s", error)
            self._usable = False
            return self._decoder.forward(batch, self._caches)
        self._recorded[rows] = _Recorded(batch, hidden, rotations, program)
        return program.output

    def _fill(self, items: Sequence[ScheduledRequest]) -> None:
        token_ids, positions, lengths = (part.numpy() for part in (self._token_ids, self._positions, self._lengths))
        contexts, tables, slots = self._contexts.numpy(), self._tables.numpy(), self._slots.numpy()
        block_size = self._block_size
        for row, (request, start, _, blocks, _) in enumerate(items):
            token_ids[row] = request.device_tokens[start]
            positions[row] = start
            lengths[row] = max(request.num_prompt_tokens, start + 1)
            contexts[row] = start + 1
            for group, (first, held) in enumerate(blocks):
                tables[group, row, first : first + len(held)] = held
                slots[group, row] = held[-1] * block_size + start % block_size

    def _batch(self, rows: int) -> ModelInput:
        return ModelInput(
            token_ids=self._token_ids[:rows],
            positions=self._positions[:rows],
            sequence_lengths=self._lengths[:rows],
            pagings=tuple(
                PagedBatch(self._query_starts[: rows + 1], self._contexts[:rows], tables[:rows], slots[:rows])
                for tables, slots in zip(self._tables, self._slots, strict=True)
            ),
        )


def _workspace_bytes(decoder: Decoder) -> int:
    """Room for the results that are alive at once in a layer, twice over: between them pieces may lie unused."""
    return 2 * _MAX_ROWS * decoder.config.activation_elements * decoder.dtype.itemsize
