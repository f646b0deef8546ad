"""From a step's hidden states to tokens and log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kernels.sampling import Logprobs, SamplingRows, logprobs, process_logits, sample
from serving_image.engine.protocol import TokenLogprobs
from serving_image.engine.request import Request
from serving_image.engine.step import ScheduledRequest
from serving_image.models.interface import Model
from serving_image.runtime.gpu.request_rows import RequestRow
from serving_image.runtime.gpu.step_inputs import Sampled
from serving_image.runtime.gpu.transfer import read_back, send

_ROWS_AT_A_TIME = 64
"""Prompt positions whose scores exist at once: over 128,000 tokens, 33 MB instead of 1 GB for a prompt of 2,048."""


@dataclass(frozen=True, slots=True)
class Report:
    """Log-probabilities of ``token_ids``, on their way to the host."""

    token_ids: Tensor
    logprobs: Logprobs

    @classmethod
    def of(cls, logits: Tensor, token_ids: Tensor, num_top: int) -> Report:
        """What to report of ``token_ids`` ``[rows]`` int32 under the raw scores ``logits`` ``[rows, vocab]``."""
        found = logprobs(logits, token_ids, num_top)
        return cls(read_back(token_ids), Logprobs(*map(read_back, found)))

    def read(self, num_top: Sequence[int]) -> list[TokenLogprobs]:
        """Once it has arrived: one per row, each with as many of the best tokens as its request wants."""
        chosen, rank, top_ids, top = (part.tolist() for part in self.logprobs)
        return [
            TokenLogprobs(token, chosen[i], rank[i], top_ids[i][:wanted], top[i][:wanted])
            for i, (token, wanted) in enumerate(zip(self.token_ids.tolist(), num_top, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The tokens of a step, ``[rows]``, on their way to the host; and what is reported of those of ``reported``."""

    token_ids: Tensor
    reported: Sequence[Request]
    report: Report | None

    def read_logprobs(self) -> dict[Request, TokenLogprobs]:
        """Once they have arrived."""
        if self.report is None:
            return {}
        num_top = [request.sampling.logprobs or 0 for request in self.reported]
        return dict(zip(self.reported, self.report.read(num_top), strict=True))


@dataclass(frozen=True, slots=True)
class PromptReport:
    """Log-probabilities of a request's prompt tokens, in pieces, on their way to the host."""

    request: Request
    pieces: Sequence[Report]

    def read(self) -> list[TokenLogprobs]:
        """Once they have arrived."""
        num_top = self.request.sampling.prompt_logprobs or 0
        return [entry for piece in self.pieces for entry in piece.read([num_top] * len(piece.token_ids))]


class StepSampler:
    """Chooses tokens, which stay in the requests' rows, and reports on them; all in fixed order, without waiting."""

    def __init__(self, model: Model, sampling: SamplingRows) -> None:
        self._model = model
        self._sampling = sampling

    def choose(
        self, hidden: Tensor, items: Sequence[ScheduledRequest], rows: Sequence[RequestRow], sampled: Sampled
    ) -> Chosen:
        """The next token of every item that samples.

        :param hidden: ``[items, hidden]``, of the items' last tokens; there may be rows of padding after them.
        """
        logits = self._model.logits(hidden)
        wanted = [i for i, item in enumerate(items) if item.samples and item.request.sampling.logprobs is not None]
        index = send(np.array(wanted, dtype=np.int64), logits.device) if wanted else None
        # Processing changes the scores, and what is reported are the model's own.
        raw = None if index is None else logits.index_select(0, index)
        sampling = [row.index for item, row in zip(items, rows, strict=True) if item.samples]
        if self._sampling.processes(sampling):
            process_logits(logits, sampled.rows, sampled.positions, self._sampling.state)
        truncates = self._sampling.truncates(sampling)
        token_ids = sample(logits, sampled.rows, sampled.positions, self._sampling.state, truncates)
        report = None
        if raw is not None and index is not None:
            num_top = max(items[i].request.sampling.logprobs or 0 for i in wanted)
            report = Report.of(raw, token_ids.index_select(0, index), num_top)
        return Chosen(read_back(token_ids), [items[i].request for i in wanted], report)

    def report_prompt(self, hidden: Tensor, item: ScheduledRequest, row: RequestRow) -> PromptReport:
        """Log-probabilities of the prompt tokens that follow the item's, whose ``hidden`` ``[tokens, hidden]`` are."""
        request = item.request
        count = min(item.num_tokens, request.num_prompt_tokens - item.start - 1)
        following = self._sampling.state.tokens[row.index, item.start + 1 : item.start + 1 + count]
        pieces = []
        for start in range(0, count, _ROWS_AT_A_TIME):
            part = slice(start, min(start + _ROWS_AT_A_TIME, count))
            logits = self._model.logits(hidden[part])
            pieces.append(Report.of(logits, following[part], request.sampling.prompt_logprobs or 0))
        return PromptReport(request, pieces)
