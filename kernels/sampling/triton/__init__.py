"""The Triton forms."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.sampling.rows import SamplingState
from kernels.sampling.triton.best import choose, empty_best
from kernels.sampling.triton.counting import count_tokens
from kernels.sampling.triton.draw import draw
from kernels.sampling.triton.processing import process_logits
from kernels.sampling.triton.reporting import logprobs
from kernels.sampling.triton.truncation import truncate

__all__ = ["count_tokens", "logprobs", "process_logits", "sample"]


def sample(logits: Tensor, row_of: Tensor, position: Tensor, state: SamplingState, truncates: bool) -> Tensor:
    """See :func:`kernels.sampling.sample`."""
    if not logits.shape[0]:
        return torch.empty_like(row_of)
    best = empty_best(logits)
    kept = truncate(logits, row_of, position, state, best) if truncates else None
    draw(logits, row_of, position, state, kept, best)
    return choose(best, row_of, position, state)
