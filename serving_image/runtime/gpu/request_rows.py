"""A row on the device for each live request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernels.batch_inputs import RequestTables
from kernels.sampling import RowSampling, SamplingRows
from serving_image.engine.block_table import BlockSpan
from serving_image.engine.request import Request
from serving_image.runtime.gpu.transfer import send, send_into

_SPARE_ROWS = 8
"""Rows beyond those of running requests: preempted ones keep theirs for as long as nobody else needs it."""


@dataclass(slots=True)
class RequestRow:
    """A request's row; ``blocks`` are those that the device knows of, in each group."""

    index: int
    blocks: tuple[BlockSpan, ...] = ()

    def first_new_blocks(self, blocks: tuple[BlockSpan, ...]) -> list[int]:
        """From which number on the ``blocks`` of each group are new to the device; all of them if the request was
        preempted since."""
        if not self.blocks:
            return [span.first for span in blocks]
        return [_first_new(known, span) for known, span in zip(self.blocks, blocks, strict=True)]


def _first_new(known: BlockSpan, now: BlockSpan) -> int:
    end = known.first + len(known.blocks)
    common = end - now.first
    kept = common >= 0 and known.first <= now.first and known.blocks[now.first - known.first :] == now.blocks[:common]
    return end if kept else now.first


class RequestRows:
    """Who has which row.

    ::

        request ──first scheduled──► row: prompt and parameters are sent
                                      │    each step: what blocks are new; the token that is chosen stays there
                  ended ◄─────────────┤
                                      └──► preempted, and its row is needed: it gives the row up, and gets one anew,
                                           with all its tokens, when it runs again

    A row may go to another request while a launched step still uses it, because the device works in order.

    :param max_num_seqs: how many requests may run at once.
    :param max_blocks: of the longest context, in each of ``num_groups`` groups of layers.
    """

    def __init__(
        self,
        max_num_seqs: int,
        max_model_len: int,
        max_blocks: int,
        vocab_size: int,
        device: torch.device,
        num_groups: int = 1,
    ) -> None:
        rows = max_num_seqs + _SPARE_ROWS
        self.tables = RequestTables(
            tokens=torch.zeros((rows, max_model_len), dtype=torch.int32, device=device),
            prompt_lengths=torch.zeros(rows, dtype=torch.int32, device=device),
            blocks=torch.zeros((num_groups, rows, max_blocks), dtype=torch.int32, device=device),
        )
        self.sampling = SamplingRows(self.tables.tokens, vocab_size)
        self._free = list(reversed(range(rows)))
        self._rows: dict[Request, RequestRow] = {}

    @property
    def num_free(self) -> int:
        """Rows that nobody has."""
        return len(self._free)

    def admit(self, requests: Sequence[Request]) -> list[RequestRow]:
        """The row of each of these requests, all of which run; those that have none get one."""
        new = [request for request in requests if request not in self._rows]
        if len(new) > len(self._free):
            # Requests that run hold blocks, and no more of them run at once than there are rows.
            self.forget([request for request in self._rows if not request.blocks.groups])
        if new:
            self._send(new)
        return [self._rows[request] for request in requests]

    def forget(self, requests: Iterable[Request]) -> None:
        """Give back these requests' rows; those that have none are ignored."""
        for request in requests:
            row = self._rows.pop(request, None)
            if row is not None:
                self.sampling.release([row.index])
                self._free.append(row.index)

    def _send(self, requests: Sequence[Request]) -> None:
        """Send the tokens and parameters of new requests to free rows; they have the rows once that is launched."""
        rows = [RequestRow(index) for index in reversed(self._free[-len(requests) :])]
        tokens, device = self.tables.tokens, self.tables.tokens.device
        for row, request in zip(rows, requests, strict=True):
            send_into(tokens[row.index, : len(request.tokens)], np.array(request.tokens, dtype=np.int32))
        lengths = np.array([request.num_prompt_tokens for request in requests], dtype=np.int32)
        index = send(np.array([row.index for row in rows]), device)
        self.tables.prompt_lengths.index_copy_(0, index, send(lengths, device))
        self.sampling.admit({row.index: _sampling(r) for row, r in zip(rows, requests, strict=True)})
        del self._free[-len(requests) :]
        self._rows.update(zip(requests, rows, strict=True))


def _sampling(request: Request) -> RowSampling:
    params = request.sampling
    return RowSampling(
        seed=request.seed,
        prompt_length=request.num_prompt_tokens,
        num_tokens=len(request.tokens),
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        frequency_penalty=params.frequency_penalty,
        presence_penalty=params.presence_penalty,
        min_tokens=params.min_tokens,
        stop_token_ids=params.stop_token_ids,
        logit_bias=params.logit_bias,
        allowed_token_ids=params.allowed_token_ids,
        bad_words=params.bad_words,
    )
