"""Choosing the next token of every request of a step, on a GPU.

The order of things is vLLM's (``vllm/v1/sample/sampler.py``)::

    raw scores ─► logprobs, reported
        │
        └─► process_logits: allowed tokens, bad words, minimum length, bias, penalties
                │
                └─► sample: greedy: the best
                            random: temperature ─► min-p ─► top-k ─► top-p ─► Gumbel-max among what is left

Everything is on the device and in fixed rows (:class:`SamplingRows`): nothing waits for the host, launches depend on
shapes alone, so that a CUDA graph can capture them, and a row's result is bitwise the same whatever other rows there
are.

A step's floor is reading its scores once: 131 MB for 256 rows of 128,256, which a memory of 4.3 TB/s gives in 31 µs.
How near the kernels come on a GPU has not been measured.

There are Triton forms only; :mod:`kernels.sampling.reference` says in plain torch what they compute.
"""

from __future__ import annotations

from torch import Tensor

from kernels.sampling.result import Logprobs
from kernels.sampling.rows import RowSampling, SamplingRows, SamplingState

__all__ = [
    "Logprobs",
    "RowSampling",
    "SamplingRows",
    "SamplingState",
    "logprobs",
    "process_logits",
    "sample",
]


def process_logits(logits: Tensor, row_of: Tensor, position: Tensor, state: SamplingState) -> None:
    """Apply each request's constraints, bias and penalties to its scores, in place.

    :param logits: ``[n, vocab]`` float32; a row's elements adjacent, rows any distance apart (best a multiple of 4).
    :param row_of: ``[n]`` int32, the row of ``state`` that holds the request; -1 for padding, which is left alone. No
        row twice.
    :param position: ``[n]`` int32, where the token to be chosen will stand in the row's ``tokens``: how many it has.

    Rows that ask for nothing are not read; where that is all (:meth:`SamplingRows.processes`), leave the call out.
    """
    from kernels.sampling import triton as form

    form.process_logits(logits, row_of, position, state)


def sample(logits: Tensor, row_of: Tensor, position: Tensor, state: SamplingState, truncates: bool) -> Tensor:
    """The next token of every row, which is also written to ``state.tokens[row, position]`` and counted for penalties.

    :param logits: ``[n, vocab]`` float32, processed; unchanged. Strides as in :func:`process_logits`.
    :param row_of: as in :func:`process_logits`.
    :param position: as in :func:`process_logits`.
    :param truncates: :meth:`SamplingRows.truncates` of the rows; True is always right, False saves four launches.
    :returns: ``[n]`` int32. -1 where nothing can be chosen, so that the request must fail: its scores hold a NaN or
        +inf, or nothing but -inf; then ``state.tokens`` gets a 0, which is some token. -1 for padding, too.

    Of equal best tokens the greedy choice is that of the lowest id. What min-p, top-k and top-p keep are the tokens
    whose score reaches a cutoff, so equal tokens stay or go together; each counts within what those before it left.

    Random choice is Gumbel-max (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030): the best of score plus noise,
    which draws from the softmax without summing it. The noise of a token is a function of the request's seed, how many
    tokens it has generated, and the token's id (Philox4x32-10; Salmon et al. 2011, doi 10.1145/2063384.2063405): not of
    the batch, a preemption or a repeated step.
    """
    from kernels.sampling import triton as form

    return form.sample(logits, row_of, position, state, truncates)


def logprobs(logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
    """Log-probabilities of the raw scores: before :func:`process_logits` changes them, so keep a copy where it will.

    :param logits: ``[n, vocab]`` float32; unchanged. Strides as in :func:`process_logits`.
    :param chosen: ``[n]`` int32, within the vocabulary; of a negative one nothing that is reported means anything.
    :param num_top: how many of the best tokens to report; more than the vocabulary has are not.
    """
    from kernels.sampling import triton as form

    return form.logprobs(logits, chosen, num_top)
