"""One pass over the scores that says of every group of 64 tokens which score is the best and what they weigh.

::

    scores   │ 64 values │ 64 values │ 64 values │ …       read once: 4 bytes per token
    maxima   │     m     │     m     │     m     │ …       a few thousand per row: what is searched first
    masses   │  Σ 2^(…)  │  Σ 2^(…)  │  Σ 2^(…)  │ …
                   └─► what is sought is in the groups with the best maxima: only they are read again

256 rows of 128,256 are 131 MB in and 4 MB out, with 8 operations per token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.triton.row import (
    FLAGS,
    INVERSE_TEMPERATURE,
    LOG2_E,
    TRUNCATES,
    integer,
    number,
    poisoned_to_infinity,
)

GROUP = tl.constexpr(64)


class Survey(NamedTuple):
    """Both ``[n, groups]`` float32: the best score of each group, and the sum of ``2 ** (scale · (score - best))``.

    ``scale`` is log2(e) over the temperature. A group with a NaN has the best score +inf.
    """

    maxima: Tensor
    masses: Tensor


def empty_survey(logits: Tensor) -> Survey:
    """Room for one of ``logits`` ``[n, vocab]``."""
    n, vocab = logits.shape
    maxima = torch.empty(n, triton.cdiv(vocab, GROUP), dtype=torch.float32, device=logits.device)
    return Survey(maxima, torch.empty_like(maxima))


def survey_truncated(logits: Tensor, row_of: Tensor, parameters: Tensor) -> Survey:
    """Survey the rows that truncate, at their temperatures; of others nothing is written."""
    n, vocab = logits.shape
    survey = empty_survey(logits)
    tile = tile_shape("sampling", "survey", "all", device_of(logits))
    _survey[(n, triton.cdiv(vocab, tile["tile"]))](
        logits,
        logits.stride(0),
        row_of,
        parameters,
        survey.maxima,
        survey.masses,
        vocab,
        GROUP=GROUP,
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )
    return survey


@triton.jit(do_not_specialize_on_alignment=["row_of"])  # type: ignore[untyped-decorator]
def _survey(
    logits: tl.tensor,
    stride: tl.tensor,
    row_of: tl.tensor,
    parameters: tl.tensor,
    maxima: tl.tensor,
    masses: tl.tensor,
    vocab: tl.tensor,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    row = tl.load(row_of + i)
    if row < 0:
        return
    if integer(parameters, row, FLAGS) & TRUNCATES == 0:
        return
    x = load_groups(logits + i.to(tl.int64) * stride, tl.program_id(1) * TILE, vocab, GROUP, TILE)
    scale = number(parameters, row, INVERSE_TEMPERATURE) * LOG2_E
    store_survey(x, scale, i, tl.program_id(1) * TILE, maxima, masses, vocab, GROUP, TILE)


@triton.jit  # type: ignore[untyped-decorator]
def load_groups(
    scores: tl.tensor, first: tl.tensor, vocab: tl.tensor, GROUP: tl.constexpr, TILE: tl.constexpr
) -> tl.tensor:
    """The scores of the tokens from ``first`` on, ``[TILE // GROUP, GROUP]``; -inf beyond the vocabulary."""
    at = first + places(GROUP, TILE)
    return poisoned_to_infinity(tl.load(scores + at, mask=at < vocab, other=float("-inf")))


@triton.jit  # type: ignore[untyped-decorator]
def places(GROUP: tl.constexpr, TILE: tl.constexpr) -> tl.tensor:
    """``0 … TILE - 1`` as ``[TILE // GROUP, GROUP]``."""
    return tl.arange(0, TILE // GROUP)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]


@triton.jit  # type: ignore[untyped-decorator]
def store_survey(
    x: tl.tensor,
    scale: tl.tensor,
    i: tl.tensor,
    first: tl.tensor,
    maxima: tl.tensor,
    masses: tl.tensor,
    vocab: tl.tensor,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """What :class:`Survey` says of the groups ``x`` of row ``i``."""
    best = tl.max(x, axis=1)
    # A group of nothing but -inf weighs nothing, which -inf - -inf would not say.
    shift = tl.where(best > float("-inf"), best, 0.0)
    mass = tl.sum(tl.exp2((x - shift[:, None]) * scale), axis=1)
    groups = tl.cdiv(vocab, GROUP)
    group = first // GROUP + tl.arange(0, TILE // GROUP)
    at = i.to(tl.int64) * groups + group
    tl.store(maxima + at, best, mask=group < groups)
    tl.store(masses + at, mass, mask=group < groups)
