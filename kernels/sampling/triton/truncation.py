"""Which scores min-p, top-k and top-p keep, without sorting, and the token drawn from them.

::

    survey ──► bounds ──► gather ──► cut
                 │          │         └─ the exact cutoff, by bisection among the candidates, in registers; and with it
                 │          │            a token
                 │          └─ the tokens that reach the bound, from groups whose best does: usually few hundred
                 └─ a score that no cutoff is below

One pass over the scores, the survey's, is all it takes as long as the candidates fit. A nearly flat distribution with
top-p alone has more, and goes the long way of :mod:`kernels.sampling.triton.flat`. Per row, gathering reads about 256
bytes per candidate, and there are 64 KB of room.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.rows import SamplingState
from kernels.sampling.triton.best import Best, first_best
from kernels.sampling.triton.bounds import Bounds, find_bounds
from kernels.sampling.triton.flat import cutoff_among_all
from kernels.sampling.triton.keys import key, last_to_reach, score, share, weight
from kernels.sampling.triton.noise import gumbel_of
from kernels.sampling.triton.parts import cut
from kernels.sampling.triton.row import (
    INVERSE_TEMPERATURE,
    LOG2_E,
    LOG_MIN_P,
    PROMPT_LENGTH,
    SEED,
    TOP_K,
    TOP_P,
    integer,
    long,
    number,
)
from kernels.sampling.triton.survey import GROUP, survey_truncated


class Kept(NamedTuple):
    """What truncation leaves of the rows that ask for it: the tokens whose scores are at least ``cutoff`` ``[n]``
    float32. ``drawn`` ``[n]`` int32 is 1 where a token has been drawn from them."""

    cutoff: Tensor
    drawn: Tensor


class _Candidates(NamedTuple):
    """Both ``[n, room]``, of each row the first few, in any order: scores float32, tokens int32."""

    scores: Tensor
    tokens: Tensor


def truncate(logits: Tensor, row_of: Tensor, position: Tensor, state: SamplingState, best: Best) -> Kept:
    """Truncate the rows that ask for it.

    :param logits: ``[n, vocab]`` float32.
    :param best: gets the tokens that are drawn, in its first part.
    """
    n, vocab = logits.shape
    survey = survey_truncated(logits, row_of, state.parameters)
    bounds = find_bounds(survey, row_of, state.parameters)
    tile = tile_shape("sampling", "cut", "all", device_of(logits))
    candidates = _Candidates(
        torch.empty(n, tile["candidates"], dtype=torch.float32, device=logits.device),
        torch.empty(n, tile["candidates"], dtype=torch.int32, device=logits.device),
    )
    _gather_candidates(logits, bounds, candidates)
    kept = Kept(
        torch.empty(n, dtype=torch.float32, device=logits.device),
        torch.empty(n, dtype=torch.int32, device=logits.device),
    )
    _cut[(n,)](
        logits,
        logits.stride(0),
        row_of,
        position,
        state.parameters,
        bounds.best,
        bounds.lowest,
        bounds.total,
        bounds.num_candidates,
        *candidates,
        *kept,
        best.scores,
        best.tokens,
        best.scores.shape[1],
        vocab,
        FEW=tile["few"],
        MANY=tile["candidates"],
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )
    return kept


def _gather_candidates(logits: Tensor, bounds: Bounds, candidates: _Candidates) -> None:
    n, vocab = logits.shape
    device = device_of(logits)
    tile = tile_shape("sampling", "gather", "all", device)
    parts = cut(n, triton.cdiv(vocab, tile["tile"]), device, tile["programs_per_multiprocessor"])
    _gather[(n, parts.number)](
        logits,
        logits.stride(0),
        bounds.lowest,
        bounds.groups,
        bounds.groups.stride(0),
        bounds.num_groups,
        bounds.num_candidates,
        *candidates,
        vocab,
        ROOM=candidates.scores.shape[1],
        GROUP=GROUP,
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )


@triton.jit  # type: ignore[untyped-decorator]
def _gather(
    logits: tl.tensor,
    stride: tl.tensor,
    lowests: tl.tensor,
    groups: tl.tensor,
    groups_stride: tl.tensor,
    nums_groups: tl.tensor,
    counts: tl.tensor,
    candidate_scores: tl.tensor,
    candidate_tokens: tl.tensor,
    vocab: tl.tensor,
    ROOM: tl.constexpr,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Tokens whose scores reach the row's bound. If there is no room for all, they are only counted."""
    i = tl.program_id(0)
    num_groups = tl.load(nums_groups + i)
    lowest = tl.load(lowests + i)
    scores = logits + i.to(tl.int64) * stride
    room = i.to(tl.int64) * ROOM
    for tile in range(tl.program_id(1), tl.cdiv(num_groups, TILE // GROUP), tl.num_programs(1)):
        listed = tile * (TILE // GROUP) + tl.arange(0, TILE // GROUP)
        group = tl.load(groups + i.to(tl.int64) * groups_stride + listed, mask=listed < num_groups, other=0)
        at = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
        x = tl.load(scores + at, mask=(listed < num_groups)[:, None] & (at < vocab), other=float("-inf"))
        chosen = ((x >= lowest) & (x > float("-inf"))).to(tl.int32)
        of_group = tl.sum(chosen, axis=1)
        count = tl.sum(of_group, axis=0)
        start = tl.atomic_add(counts + i, count, sem="relaxed")
        if start + count <= ROOM:
            slot = start + (tl.cumsum(of_group, axis=0) - of_group)[:, None] + tl.cumsum(chosen, axis=1) - 1
            tl.store(candidate_scores + room + slot, x, mask=chosen > 0)
            tl.store(candidate_tokens + room + slot, at, mask=chosen > 0)


@triton.jit(do_not_specialize=["parts"], do_not_specialize_on_alignment=["row_of", "position"])  # type: ignore[untyped-decorator]
def _cut(
    logits: tl.tensor,
    stride: tl.tensor,
    row_of: tl.tensor,
    position: tl.tensor,
    parameters: tl.tensor,
    bests: tl.tensor,
    lowests: tl.tensor,
    totals: tl.tensor,
    counts: tl.tensor,
    candidate_scores: tl.tensor,
    candidate_tokens: tl.tensor,
    cutoffs: tl.tensor,
    drawn: tl.tensor,
    best_scores: tl.tensor,
    best_tokens: tl.tensor,
    parts: tl.tensor,
    vocab: tl.tensor,
    FEW: tl.constexpr,
    MANY: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    lowest = tl.load(lowests + i)
    tl.store(cutoffs + i, lowest)
    tl.store(drawn + i, 0)
    if lowest == float("inf"):
        return
    row = tl.load(row_of + i)
    best = tl.load(bests + i)
    total = tl.load(totals + i)
    count = tl.load(counts + i)
    scale = number(parameters, row, INVERSE_TEMPERATURE) * LOG2_E
    top_p = number(parameters, row, TOP_P)
    top_k = integer(parameters, row, TOP_K)
    # Without top-k and min-p, top-p is of all tokens, and not all are candidates.
    of_all = (top_k == 0) & (number(parameters, row, LOG_MIN_P) == float("-inf"))
    total = tl.where(of_all, total, 0)
    scores = candidate_scores + i.to(tl.int64) * MANY
    if count > MANY:
        row_scores = logits + i.to(tl.int64) * stride
        cutoff = cutoff_among_all(
            row_scores, vocab, scores, count, top_k, top_p, total, best, lowest, scale, MANY, TILE
        )
        tl.store(cutoffs + i, cutoff)
        return
    tokens = candidate_tokens + i.to(tl.int64) * MANY
    seed = long(parameters, row, SEED)
    generated = tl.load(position + i) - integer(parameters, row, PROMPT_LENGTH)
    if count <= FEW:
        cutoff = _cutoff_among(scores, count, top_k, top_p, total, best, lowest, scale, FEW)
        drawn_score, token = _draw_among(scores, tokens, count, cutoff, seed, generated, scale, FEW)
    else:
        cutoff = _cutoff_among(scores, count, top_k, top_p, total, best, lowest, scale, MANY)
        drawn_score, token = _draw_among(scores, tokens, count, cutoff, seed, generated, scale, MANY)
    tl.store(cutoffs + i, cutoff)
    tl.store(drawn + i, 1)
    tl.store(best_scores + i.to(tl.int64) * parts, drawn_score)
    tl.store(best_tokens + i.to(tl.int64) * parts, token)


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


@triton.jit  # type: ignore[untyped-decorator]
def _draw_among(
    candidates: tl.tensor,
    tokens: tl.tensor,
    count: tl.tensor,
    cutoff: tl.tensor,
    seed: tl.tensor,
    generated: tl.tensor,
    scale: tl.tensor,
    ROOM: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """The best of the candidates that are kept, with noise."""
    place = tl.arange(0, ROOM)
    x = tl.load(candidates + place, mask=place < count, other=float("-inf"))
    token = tl.load(tokens + place, mask=place < count, other=0)
    noisy = x * scale + gumbel_of(seed, generated, token)
    kept = (x >= cutoff) & (place < count)
    best, chosen = first_best(tl.where(kept, noisy, float("-inf")), token)
    return best, chosen
