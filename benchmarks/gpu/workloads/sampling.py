"""Requests at the sampler, each with its own parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.workloads.tensors import random
from kernels.sampling import Logprobs, RowSampling, SamplingRows, logprobs, process_logits, sample

_PROMPT = 32
_MODEL_LENGTH = 256


class SamplerCall(NamedTuple):
    """A step's scores and the rows of its requests."""

    logits: Tensor
    row_of: Tensor
    position: Tensor
    rows: SamplingRows

    def process(self) -> None:
        process_logits(self.logits, self.row_of, self.position, self.rows.state)

    def sample(self) -> Tensor:
        truncates = self.rows.truncates(range(self.logits.shape[0]))
        return sample(self.logits, self.row_of, self.position, self.rows.state, truncates)

    def logprobs(self, num_top: int) -> Logprobs:
        return logprobs(self.logits, self.row_of, num_top)


def sampler(requests: int, vocab: int, device: torch.device, **asked: object) -> SamplerCall:
    """So many requests, with 32 tokens each, that all ask for the same; see :class:`kernels.sampling.RowSampling`."""
    tokens = torch.zeros(requests, _MODEL_LENGTH, dtype=torch.int32, device=device)
    rows = SamplingRows(tokens, vocab)
    asks = {row: RowSampling(row, _PROMPT, _PROMPT, **asked) for row in range(requests)}  # type: ignore[arg-type]
    rows.admit(asks)
    # Scores of a language model spread about so much.
    logits = random((requests, vocab), torch.float32, device, scale=3.0)
    row_of = torch.arange(requests, dtype=torch.int32, device=device)
    return SamplerCall(logits, row_of, torch.full_like(row_of, _PROMPT), rows)
