"""Choosing the next token of every request of a step, in one batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MIN_TEMPERATURE = 1e-5
_FIRST_LOOK = 1024
"""Candidates sorted at first for top-p: a full sort of 32,000 takes 2.1 ms per row, this 0.17 ms."""


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """How to choose one token. ``top_k`` 0 is off; ``uniform`` is in [0, 1).

    ``banned`` tokens cannot be chosen: the stop tokens, until ``min_tokens`` are there.
    """

    temperature: float
    top_k: int
    top_p: float
    uniform: float
    banned: frozenset[int] = frozenset()

    @property
    def greedy(self) -> bool:
        """Whether the best token is taken; below 1e-5, dividing by the temperature could overflow, so as in vLLM
        it counts as 0."""
        return self.temperature < _MIN_TEMPERATURE

    @property
    def truncated(self) -> bool:
        return self.top_k > 0 or self.top_p < 1


def uniform(seed: int, index: int) -> float:
    """The ``index``-th number in [0, 1) of the stream ``seed``.

    Counter-based, so a token's randomness depends on nothing but its request's seed and its place: not on the batch,
    the device, a preemption or a repeated step.
    """
    digest = hashlib.blake2b(
        seed.to_bytes(8, "little", signed=seed < 0) + index.to_bytes(8, "little"), digest_size=8
    ).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)


def sample(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """One token id per row, ``[rows]`` int64 on the device of ``logits``.

    :param logits: ``[rows, vocab]`` float32; may be changed.

    As in vLLM: temperature first, then the ``top_k`` best tokens, then the smallest set of the best of these whose
    probability reaches ``top_p``; at least one token always remains.
    """
    for position, row in enumerate(rows):
        if row.banned:
            logits[position, list(row.banned)] = float("-inf")
    chosen = logits.argmax(dim=-1)
    for truncated, choose in ((False, _sample_all), (True, _sample_truncated)):
        members = [i for i, row in enumerate(rows) if not row.greedy and row.truncated == truncated]
        if members:
            index = torch.tensor(members, device=logits.device)
            chosen[index] = choose(logits[index], [rows[i] for i in members])
    return chosen


def _sample_all(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    return _invert(_probabilities(logits, rows), rows)


def _sample_truncated(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    probabilities = _probabilities(logits, rows)
    vocab = logits.shape[1]
    # A row's own top_k bounds what it needs; the rest is decided by how many tokens its top_p takes.
    top_k = _column([row.top_k or vocab for row in rows], torch.int64, logits.device).clamp_max(vocab)
    top_p = _column([row.top_p for row in rows], torch.float32, logits.device)
    count = min(vocab, max(_FIRST_LOOK, *(row.top_k for row in rows)))
    best = torch.topk(probabilities, count)
    kept = _nucleus(best.values, probabilities, top_k, top_p)
    if count < vocab and bool(((kept[:, -1:] > 0) & (top_k > count)).any()):
        best = torch.topk(probabilities, vocab)
        kept = _nucleus(best.values, probabilities, top_k, top_p)
    return best.indices.gather(1, _invert(kept, rows)[:, None])[:, 0]


def _nucleus(best: Tensor, probabilities: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """``best`` (descending, ``[rows, count]``) with the tokens outside top-k and top-p set to 0.

    Top-p counts within the ``top_k`` best; where top-k is off, within all of ``probabilities``.
    """
    rank = torch.arange(best.shape[1], device=best.device)
    within_k = best.masked_fill(rank >= top_k, 0.0)
    unlimited = top_k >= probabilities.shape[1]
    total = torch.where(unlimited, probabilities.sum(1, keepdim=True), within_k.sum(1, keepdim=True))
    before = within_k.cumsum(dim=1) - within_k
    outside = (before >= top_p * total) & (rank > 0)
    return within_k.masked_fill(outside, 0.0)


def _probabilities(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    temperature = _column([row.temperature for row in rows], torch.float32, logits.device)
    return (logits / temperature).softmax(dim=-1)


def _invert(weights: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Sample columns of ``weights`` ``[rows, n]`` (not normalised) by inverting their distribution function.

    The sums are in float64, whose rounding cannot hide even a token of probability 1e-12 among 100,000; a column of
    weight 0 is never chosen.
    """
    cumulative = weights.cumsum(dim=1, dtype=torch.float64)
    total = cumulative[:, -1:].contiguous()
    threshold = _column([row.uniform for row in rows], torch.float64, weights.device) * total
    index = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    # A uniform just below 1 may round its threshold up to the total: then the last token that has weight is meant.
    last = torch.searchsorted(cumulative, total)[:, 0]
    return torch.minimum(index, last)


def _column(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None]
