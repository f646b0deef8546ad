"""A score that no cutoff of a row is below, from its groups' best scores and masses alone: what does not reach it need
not be looked at again.

Where ``k`` groups' best scores reach a score, at least ``k`` tokens do. Top-p needs no token if it and the ones below
it weigh at most ``1 - p``, and what they weigh is bounded by their groups' masses. ``groups`` · 8 bytes are read per
row, and at most half as much is written.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.triton.keys import whole
from kernels.sampling.triton.row import (
    FLAGS,
    INVERSE_TEMPERATURE,
    LOG2_E,
    LOG_MIN_P,
    TOP_K,
    TOP_P,
    TRUNCATES,
    integer,
    number,
)
from kernels.sampling.triton.survey import GROUP, Survey


class Bounds(NamedTuple):
    """Of each row, ``[n]`` but for ``groups``.

    ``best``: its best score. ``lowest``: the score that its candidates reach, +inf if it needs no search: it does not
    truncate, or nothing can be drawn from it. ``total``: what all its tokens weigh, int64, see
    :func:`kernels.sampling.triton.keys.weight`. ``groups``: ``[n, groups]`` int32, of which the first ``num_groups``
    (int32) hold candidates. ``num_candidates``: 0, int32. Of rows that need no search, only ``lowest`` and
    ``num_groups``, which is 0, mean anything.
    """

    best: Tensor
    lowest: Tensor
    total: Tensor
    groups: Tensor
    num_groups: Tensor
    num_candidates: Tensor


def find_bounds(survey: Survey, row_of: Tensor, parameters: Tensor) -> Bounds:
    """The bounds of the surveyed rows."""
    n, groups = survey.maxima.shape
    bounds = Bounds(
        torch.empty(n, dtype=torch.float32, device=row_of.device),
        torch.empty(n, dtype=torch.float32, device=row_of.device),
        torch.empty(n, dtype=torch.int64, device=row_of.device),
        torch.empty(n, groups, dtype=torch.int32, device=row_of.device),
        torch.empty(n, dtype=torch.int32, device=row_of.device),
        torch.empty(n, dtype=torch.int32, device=row_of.device),
    )
    _bound[(n,)](
        *survey,
        row_of,
        parameters,
        *bounds,
        groups,
        GROUP=GROUP,
        GROUPS=triton.next_power_of_2(groups),
        num_warps=tile_shape("sampling", "bound", "all", device_of(survey.maxima))["num_warps"],
    )
    return bounds


@triton.jit(do_not_specialize_on_alignment=["row_of"])  # type: ignore[untyped-decorator]
def _bound(
    maxima: tl.tensor,
    masses: tl.tensor,
    row_of: tl.tensor,
    parameters: tl.tensor,
    bests: tl.tensor,
    lowests: tl.tensor,
    totals: tl.tensor,
    searched: tl.tensor,
    num_searched: tl.tensor,
    num_candidates: tl.tensor,
    groups: tl.tensor,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    tl.store(lowests + i, float("inf"))
    tl.store(num_searched + i, 0)
    row = tl.load(row_of + i)
    if row < 0:
        return
    if integer(parameters, row, FLAGS) & TRUNCATES == 0:
        return
    group = tl.arange(0, GROUPS)
    at = i.to(tl.int64) * groups + group
    best_of = tl.load(maxima + at, mask=group < groups, other=float("-inf"))
    best = tl.max(best_of, axis=0)
    if (best == float("-inf")) | (best == float("inf")):
        return
    inverse_temperature = number(parameters, row, INVERSE_TEMPERATURE)
    scale = inverse_temperature * LOG2_E
    # What a group weighs against the best token.
    mass = tl.load(masses + at, mask=group < groups, other=0.0) * tl.exp2((best_of - best) * scale)
    # A difference, scores being logarithms.
    lowest = tl.minimum(best, best + number(parameters, row, LOG_MIN_P) / inverse_temperature)
    top_k = integer(parameters, row, TOP_K)
    top_p = number(parameters, row, TOP_P)
    if top_k > 0:
        lowest = tl.maximum(lowest, _reached_by(best_of, top_k, best, scale))
    elif (top_p < 1) & (lowest == float("-inf")):
        lowest = _not_needed(best_of, mass, top_p, best, scale, GROUP)
    tl.store(bests + i, best)
    tl.store(lowests + i, lowest)
    tl.store(totals + i, tl.sum(whole(mass), axis=0))
    here = ((best_of >= lowest) & (best_of > float("-inf"))).to(tl.int32)
    slot = tl.cumsum(here, axis=0) - 1
    tl.store(searched + i.to(tl.int64) * groups + slot, group, mask=here > 0)
    tl.store(num_searched + i, tl.sum(here, axis=0))
    tl.store(num_candidates + i, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _reached_by(best_of: tl.tensor, k: tl.tensor, best: tl.tensor, scale: tl.tensor) -> tl.tensor:
    """A score that ``k`` groups reach, nearly the greatest; -inf if there are not so many groups."""
    reached = float("-inf")
    low = best - 64 / scale
    high = best
    for _ in range(16):
        middle = low + (high - low) * 0.5
        if tl.sum((best_of >= middle).to(tl.int32), axis=0) >= k:
            reached = middle
            low = middle
        else:
            high = middle
    return reached


@triton.jit  # type: ignore[untyped-decorator]
def _not_needed(
    best_of: tl.tensor, mass: tl.tensor, p: tl.tensor, best: tl.tensor, scale: tl.tensor, GROUP: tl.constexpr
) -> tl.tensor:
    """A score, nearly the greatest that can be told, such that the tokens below it weigh less than ``1 - p``.

    Of a group whose best is below the score everything is; of another, all but its best at most, and at most as much
    as if all others were just below. The masses are rounded, hence the margin.
    """
    spare = tl.sum(mass, axis=0) * (1 - p) * 0.999
    others = mass - tl.exp2((best_of - best) * scale)
    low = best - 64 / scale
    high = best
    for _ in range(16):
        middle = low + (high - low) * 0.5
        just_below = (GROUP - 1) * tl.exp2((middle - best) * scale)
        below = tl.where(best_of < middle, mass, tl.minimum(others, just_below))
        if tl.sum(below, axis=0) <= spare:
            low = middle
        else:
            high = middle
    return low
