"""Which scores min-p, top-k and top-p keep, without sorting.

::

    survey ──► bound ──► gather ──► cut
                 │          │         └─ the exact cutoff, by bisection among the candidates, in registers
                 │          └─ the tokens that reach the bound, from groups whose best does: usually few hundred
                 └─ a score that no cutoff is below, from the groups' best scores and masses alone

The bound: where ``k`` groups' best scores reach it, at least ``k`` tokens do. Top-p needs no token if it and the ones
below it weigh at most ``1 - p``, and what they weigh is bounded by their groups' masses. So one pass over the scores is
all it takes (the survey's), as long as the candidates fit; a nearly flat distribution with top-p alone has more, and
goes the long way of :mod:`kernels.sampling.triton.flat`.

Per row: ``groups`` · 8 bytes read by the bound, about 256 bytes per candidate by the gathering, 32 KB of room.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.rows import SamplingState
from kernels.sampling.triton.draw import Kept
from kernels.sampling.triton.flat import cutoff_among_all
from kernels.sampling.triton.keys import key, last_to_reach, score, share, weight
from kernels.sampling.triton.row import (
    FLAGS,
    INVERSE_TEMPERATURE,
    LOG_MIN_P,
    TOP_K,
    TOP_P,
    TRUNCATES,
    integer,
    number,
)
from kernels.sampling.triton.survey import GROUP, LOG2_E, Survey, places, survey_truncated


class _Bounds(NamedTuple):
    """Of each row, all ``[n]``: its best score; the score that candidates reach, +inf if there is nothing to search;
    what all tokens weigh (int64, see :func:`kernels.sampling.triton.keys.weight`); how many candidates there are
    (int32)."""

    best: Tensor
    lowest: Tensor
    total: Tensor
    num_candidates: Tensor


def truncate(logits: Tensor, row_of: Tensor, state: SamplingState) -> Kept:
    """What the rows that truncate keep.

    :param logits: ``[n, vocab]`` float32.
    """
    survey = survey_truncated(logits, row_of, state.parameters)
    cutoff = torch.empty(logits.shape[0], dtype=torch.float32, device=logits.device)
    bounds = _find_bounds(logits, survey, row_of, state.parameters, cutoff)
    device = device_of(logits)
    n, vocab = logits.shape
    tile = tile_shape("sampling", "cut", "all", device)
    candidates = torch.empty(n, tile["candidates"], dtype=torch.float32, device=logits.device)
    _gather_candidates(logits, survey, bounds, candidates)
    _cut[(n,)](
        logits,
        logits.stride(0),
        row_of,
        state.parameters,
        *bounds,
        candidates,
        cutoff,
        vocab,
        FEW=tile["few"],
        MANY=tile["candidates"],
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )
    return Kept(cutoff, survey.maxima)


def _find_bounds(logits: Tensor, survey: Survey, row_of: Tensor, parameters: Tensor, cutoff: Tensor) -> _Bounds:
    n, vocab = logits.shape
    groups = survey.maxima.shape[1]
    bounds = _Bounds(
        torch.empty(n, dtype=torch.float32, device=logits.device),
        torch.empty(n, dtype=torch.float32, device=logits.device),
        torch.empty(n, dtype=torch.int64, device=logits.device),
        torch.empty(n, dtype=torch.int32, device=logits.device),
    )
    _bound[(n,)](
        *survey,
        row_of,
        parameters,
        *bounds,
        cutoff,
        vocab,
        groups,
        GROUP=GROUP,
        GROUPS=triton.next_power_of_2(groups),
        num_warps=tile_shape("sampling", "bound", "all", device_of(logits))["num_warps"],
    )
    return bounds


def _gather_candidates(logits: Tensor, survey: Survey, bounds: _Bounds, candidates: Tensor) -> None:
    n, vocab = logits.shape
    tile = tile_shape("sampling", "gather", "all", device_of(logits))
    _gather[(n, triton.cdiv(vocab, tile["tile"]))](
        logits,
        logits.stride(0),
        survey.maxima,
        bounds.lowest,
        bounds.num_candidates,
        candidates,
        vocab,
        ROOM=candidates.shape[1],
        GROUP=GROUP,
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )


@triton.jit  # type: ignore[untyped-decorator]
def _bound(
    maxima: tl.tensor,
    masses: tl.tensor,
    row_of: tl.tensor,
    parameters: tl.tensor,
    bests: tl.tensor,
    lowests: tl.tensor,
    totals: tl.tensor,
    counts: tl.tensor,
    cutoffs: tl.tensor,
    vocab: tl.tensor,
    groups: tl.tensor,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    tl.store(lowests + i, float("inf"))
    row = tl.load(row_of + i)
    if row < 0:
        return
    if integer(parameters, row, FLAGS) & TRUNCATES == 0:
        return
    group = tl.arange(0, GROUPS)
    at = i.to(tl.int64) * groups + group
    best_of = tl.load(maxima + at, mask=group < groups, other=float("-inf"))
    best = tl.max(best_of, axis=0)
    scale = number(parameters, row, INVERSE_TEMPERATURE) * LOG2_E
    # A difference, scores being logarithms.
    lowest = tl.minimum(best, best + number(parameters, row, LOG_MIN_P) / number(parameters, row, INVERSE_TEMPERATURE))
    tl.store(cutoffs + i, lowest)
    top_k = integer(parameters, row, TOP_K)
    top_p = number(parameters, row, TOP_P)
    selects = (top_k > 0) & (top_k < vocab)
    # Of a row that holds no finite best score nothing will be drawn, whatever it keeps.
    if (selects | (top_p < 1)) & (best > float("-inf")) & (best < float("inf")):
        # What a group weighs against the best token.
        mass = tl.load(masses + at, mask=group < groups, other=0.0) * tl.exp2((best_of - best) * scale)
        if selects:
            lowest = tl.maximum(lowest, _reached_by(best_of, top_k, best, scale))
        elif lowest == float("-inf"):
            lowest = _not_needed(best_of, mass, top_p, best, scale, GROUP)
        tl.store(bests + i, best)
        tl.store(lowests + i, lowest)
        tl.store(totals + i, tl.sum((mass * 1099511627776.0).to(tl.int64), axis=0))
        tl.store(counts + i, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _reached_by(best_of: tl.tensor, k: tl.tensor, best: tl.tensor, scale: tl.tensor) -> tl.tensor:
    """A score that ``k`` groups reach, nearly the greatest: no token below it is among the best ``k``."""
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


@triton.jit  # type: ignore[untyped-decorator]
def _gather(
    logits: tl.tensor,
    stride: tl.tensor,
    maxima: tl.tensor,
    lowests: tl.tensor,
    counts: tl.tensor,
    candidates: tl.tensor,
    vocab: tl.tensor,
    ROOM: tl.constexpr,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Scores of at least the row's bound, in any order. If there is no room for all, they are only counted."""
    i = tl.program_id(0)
    lowest = tl.load(lowests + i)
    if lowest == float("inf"):
        return
    first = tl.program_id(1) * TILE
    groups = tl.cdiv(vocab, GROUP)
    group = first // GROUP + tl.arange(0, TILE // GROUP)
    best_of = tl.load(maxima + i.to(tl.int64) * groups + group, mask=group < groups, other=float("-inf"))
    here = (best_of >= lowest) & (best_of > float("-inf"))
    if tl.max(here.to(tl.int32), axis=0) == 0:
        return
    at = first + places(GROUP, TILE)
    x = tl.load(logits + i.to(tl.int64) * stride + at, mask=here[:, None] & (at < vocab), other=float("-inf"))
    chosen = ((x >= lowest) & (x > float("-inf"))).to(tl.int32)
    of_group = tl.sum(chosen, axis=1)
    count = tl.sum(of_group, axis=0)
    start = tl.atomic_add(counts + i, count, sem="relaxed")
    if start + count <= ROOM:
        slot = start + (tl.cumsum(of_group, axis=0) - of_group)[:, None] + tl.cumsum(chosen, axis=1) - 1
        tl.store(candidates + i.to(tl.int64) * ROOM + slot, x, mask=chosen > 0)


@triton.jit  # type: ignore[untyped-decorator]
def _cut(
    logits: tl.tensor,
    stride: tl.tensor,
    row_of: tl.tensor,
    parameters: tl.tensor,
    bests: tl.tensor,
    lowests: tl.tensor,
    totals: tl.tensor,
    counts: tl.tensor,
    candidates: tl.tensor,
    cutoffs: tl.tensor,
    vocab: tl.tensor,
    FEW: tl.constexpr,
    MANY: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    lowest = tl.load(lowests + i)
    if lowest == float("inf"):
        return
    row = tl.load(row_of + i)
    best = tl.load(bests + i)
    total = tl.load(totals + i)
    count = tl.load(counts + i)
    scale = number(parameters, row, INVERSE_TEMPERATURE) * LOG2_E
    top_p = number(parameters, row, TOP_P)
    top_k = integer(parameters, row, TOP_K)
    top_k = tl.where(top_k < vocab, top_k, 0)
    # Without top-k and min-p, top-p is of all tokens, of which most are no candidates.
    of_all = (top_k == 0) & (number(parameters, row, LOG_MIN_P) == float("-inf"))
    total = tl.where(of_all, total, 0)
    room = candidates + i.to(tl.int64) * MANY
    if count <= FEW:
        cutoff = _cutoff_among(room, count, top_k, top_p, total, best, lowest, scale, FEW)
    elif count <= MANY:
        cutoff = _cutoff_among(room, count, top_k, top_p, total, best, lowest, scale, MANY)
    else:
        scores = logits + i.to(tl.int64) * stride
        cutoff = cutoff_among_all(scores, vocab, room, count, top_k, top_p, total, best, lowest, scale, MANY, TILE)
    tl.store(cutoffs + i, cutoff)


@triton.jit  # type: ignore[untyped-decorator]
def _cutoff_among(
    candidates: tl.tensor,
    count: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    total: tl.tensor,
    best: tl.tensor,
    lowest: tl.tensor,
    scale: tl.tensor,
    ROOM: tl.constexpr,
) -> tl.tensor:
    """The least score that is kept.

    :param top_k: 0 if it is off.
    :param total: what top-p is a share of; 0 if that is what top-k and min-p leave.
    """
    place = tl.arange(0, ROOM)
    x = tl.load(candidates + place, mask=place < count, other=float("-inf"))
    keys = key(x)
    low = key(lowest).to(tl.int64)
    high = key(best).to(tl.int64) + 1
    if top_k > 0:
        low = last_to_reach(keys, (place < count).to(tl.int32), 0, top_k, low, high)
    if top_p < 1:
        weights = tl.where(keys >= low.to(tl.int32), weight(x, best, scale), 0)
        total = tl.where(total > 0, total, tl.sum(weights, axis=0))
        low = last_to_reach(keys, weights, 0, share(total, top_p), low, high)
    return score(low.to(tl.int32))
