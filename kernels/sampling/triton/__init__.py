"""The Triton forms."""

from __future__ import annotations

from torch import Tensor

from kernels.sampling.rows import SamplingState
from kernels.sampling.triton.counting import count_tokens
from kernels.sampling.triton.draw import draw
from kernels.sampling.triton.processing import process_logits
from kernels.sampling.triton.reporting import logprobs
from kernels.sampling.triton.truncation import truncate

__all__ = ["count_tokens", "logprobs", "process_logits", "sample"]


def sample(logits: Tensor, row_of: Tensor, position: Tensor, state: SamplingState, truncates: bool) -> Tensor:
    """See :func:`kernels.sampling.sample`."""
    kept = truncate(logits, row_of, state) if truncates and logits.shape[0] else None
    return draw(logits, row_of, position, state, kept)
