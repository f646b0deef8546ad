"""Log-probabilities of chosen tokens and of the best ones, of the model's raw scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from serving_image.engine.protocol import TokenLogprobs
from serving_image.runtime.blocked import top

_ROWS_AT_A_TIME = 64
"""So that 2,000 prompt positions over a large vocabulary need no second copy of all their scores."""


def token_logprobs(logits: Tensor, token_ids: Sequence[int], num_top: int) -> list[TokenLogprobs]:
    """What to report of token ``token_ids[i]`` under the scores ``logits[i]``.

    :param logits: ``[rows, vocab]`` float32, raw; unchanged.
    :param token_ids: one per row, within the vocabulary.
    :param num_top: how many of the best tokens to report beside it; at most the vocabulary is.

    As vLLM's ``gather_logprobs``: the rank counts the tokens that are at least as probable, itself included, so equal
    tokens share the worst of their ranks. A row with a NaN gives NaN.
    """
    reports = []
    for start in range(0, len(token_ids), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        chosen = torch.tensor(token_ids[part], dtype=torch.int64, device=logits.device)
        reports += report(logits[part].log_softmax(dim=-1), chosen, num_top)
    return reports


def report(logprobs: Tensor, chosen: Tensor, num_top: int) -> list[TokenLogprobs]:
    """What to report of the tokens ``chosen`` ``[rows]`` under ``logprobs`` ``[rows, vocab]``."""
    own = logprobs.gather(1, chosen[:, None])
    rank = (logprobs >= own).sum(dim=1, keepdim=True)
    best = top(logprobs, min(num_top, logprobs.shape[1]))
    # One transfer from the device instead of five; float64 holds ids, ranks and float32 values exactly.
    packed = torch.cat([part.double() for part in (chosen[:, None], own, rank, best.columns, best.values)], dim=1)
    count = best.columns.shape[1]
    return [
        TokenLogprobs(
            token_id=int(row[0]),
            logprob=row[1],
            rank=int(row[2]),
            top_ids=[int(token) for token in row[3 : 3 + count]],
            top_logprobs=row[3 + count :],
        )
        for row in packed.tolist()
    ]
