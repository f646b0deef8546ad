"""Min-p, top-k and top-p: which tokens are too unlikely to be drawn.

Each of them keeps the tokens whose score reaches a cutoff, so equal tokens stay or go together and which ones are kept
does not depend on how a sort orders them. In vLLM's order: min-p among all tokens, then top-k, then top-p among what
these left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from serving_image.runtime.blocked import locate
from serving_image.runtime.row_subset import column, put, take
from serving_image.runtime.sampling_row import SamplingRow


def truncate(scores: Tensor, rows: Sequence[SamplingRow]) -> None:
    """Set to -inf what each row's ``min_p``, ``top_k`` and ``top_p`` leave out; its best token always remains.

    :param scores: ``[rows, vocab]`` float32, already divided by the temperature; changed.
    """
    members = [i for i, row in enumerate(rows) if row.params.min_p > 0]
    if members:
        part, index = take(scores, members)
        _drop_below(part, _min_p_cutoff(part, [rows[i] for i in members]))
        put(scores, index, part)
    members = [i for i, row in enumerate(rows) if row.params.top_k > 0 or row.params.top_p < 1]
    if members:
        part, index = take(scores, members)
        _drop_below(part, _sorted_cutoff(part, [rows[i] for i in members]))
        put(scores, index, part)


def _drop_below(scores: Tensor, cutoff: Tensor) -> None:
    scores.masked_fill_(scores < cutoff, float("-inf"))


def _min_p_cutoff(scores: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The score of ``min_p`` times the best probability, ``[rows, 1]``: a difference, scores being logarithms."""
    return scores.amax(dim=1, keepdim=True) + column([math.log(row.params.min_p) for row in rows], scores)


def _sorted_cutoff(scores: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """The least score that top-k and top-p keep, ``[rows, 1]``.

    Top-k keeps what is not below the k-th best; top-p, of these, what is not below the one at which the sum of
    probabilities, from the least on, exceeds 1 - p.
    """
    vocab = scores.shape[1]
    ordered = _sorted(scores)
    first = [vocab - min(row.params.top_k or vocab, vocab) for row in rows]
    cutoff = ordered.gather(1, column(first, scores, torch.int64))
    if all(row.params.top_p >= 1 for row in rows):
        return cutoff
    if any(row.params.top_k > 0 for row in rows):
        _drop_below(ordered, cutoff)
    left_out = column([max(0.0, 1 - row.params.top_p) for row in rows], scores, torch.float64)
    return ordered.gather(1, locate(ordered.softmax(dim=-1), left_out).columns[:, None])


def _sorted(scores: Tensor) -> Tensor:
    """A copy with every row in rising order."""
    if scores.device.type == "cpu":
        # Vectorised: 0.1 ms for a row of 32,000, where torch takes 4.
        return torch.from_numpy(np.sort(scores.numpy(), axis=1))
    return scores.sort(dim=1).values
