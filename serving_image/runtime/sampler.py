"""Choosing the next token of every request of a step, in one batch.

The order of things is vLLM's (``vllm/v1/sample/sampler.py``)::

    raw scores ─► log-probabilities to report
        │
        └─► allowed tokens, bad words, minimum length, bias, penalties ─► greedy: the best
                │
                └─► temperature ─► min-p ─► top-k ─► top-p ─► random: one of those that are left

Everything is row by row: a row's token is bitwise the same whatever other rows there are. See
:mod:`serving_image.runtime.blocked` for how little of the vocabulary is looked at twice.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from serving_image.engine.protocol import TokenLogprobs
from serving_image.engine.step import SampledToken
from serving_image.runtime.blocked import Located, first_best, locate
from serving_image.runtime.logits_processing import process_logits
from serving_image.runtime.logprobs import report, token_logprobs
from serving_image.runtime.row_subset import column, take
from serving_image.runtime.sampling_row import SamplingRow
from serving_image.runtime.truncation import truncate

__all__ = ["SamplingRow", "sample", "token_logprobs", "uniform"]

_NOTHING = -1


def sample(logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken | None]:
    """The next token of every row.

    :param logits: ``[rows, vocab]`` float32, contiguous, raw; changed.
    :returns: one per row. None where nothing can be chosen, so that the request must fail: its scores hold a NaN or
        +inf (the model overflowed), or its own constraints leave no token. Other rows are not affected.
    """
    reported = _reported(logits, rows)
    process_logits(logits, rows)
    chosen = _column_or_nothing(first_best(logits))
    members = [i for i, row in enumerate(rows) if not row.greedy]
    if members:
        scores, index = take(logits, members)
        drawn = _column_or_nothing(_draw(scores, [rows[i] for i in members]))
        chosen = drawn if index is None else chosen.index_copy_(0, index, drawn)
    logprobs: dict[int, TokenLogprobs] = {}
    for group in reported:
        reports = report(group.logprobs, chosen[group.rows].clamp_min(0), group.num_top)
        logprobs.update(zip(group.members, reports, strict=True))
    return [
        None if token_id == _NOTHING else SampledToken(token_id, logprobs.get(i))
        for i, token_id in enumerate(chosen.tolist())
    ]


def uniform(seed: int, index: int) -> float:
    """The ``index``-th number in [0, 1) of the stream ``seed`` (of which the low 64 bits count).

    Counter-based, so a token's randomness depends on nothing but its request's seed and its place: not on the batch,
    the device, a preemption or a repeated step.
    """
    key = (seed % 2**64).to_bytes(8, "little") + index.to_bytes(8, "little")
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)


class _Reported(NamedTuple):
    """Rows that want ``num_top`` log-probabilities reported, and theirs: ``[members, vocab]``."""

    members: list[int]
    rows: Tensor
    num_top: int
    logprobs: Tensor


def _reported(logits: Tensor, rows: Sequence[SamplingRow]) -> list[_Reported]:
    """Grouped by how many are wanted: which of equal tokens are the best may depend on how many are looked for."""
    wanted: defaultdict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.params.logprobs is not None:
            wanted[row.params.logprobs].append(i)
    groups = []
    for num_top, members in wanted.items():
        index = torch.tensor(members, device=logits.device)
        groups.append(_Reported(members, index, num_top, logits[index].log_softmax(dim=-1)))
    return groups


def _column_or_nothing(located: Located) -> Tensor:
    return torch.where(located.found, located.columns, _NOTHING)


def _draw(scores: Tensor, rows: Sequence[SamplingRow]) -> Located:
    """Sample every row of ``scores``, which is changed, at its temperature and within its truncation."""
    scores /= column([row.params.temperature for row in rows], scores)
    truncate(scores, rows)
    probabilities = torch.softmax(scores, dim=-1, out=scores)
    uniforms = [uniform(row.seed, row.num_output_tokens) for row in rows]
    return locate(probabilities, column(uniforms, scores, torch.float64))
