"""The cutoff of a row with more candidates than registers hold: a nearly flat distribution, or thousands of ``top_k``.

A program for the row reads all its scores again and again, each time dividing the range where the cutoff is by eight
cutoffs to try, until what is left in the range fits. Two or three readings take it there unless scores are extremely
uneven, or equal: each reading halves the range of *keys* at least, so 32 are the most.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.sampling.triton.keys import key, last_to_reach, score, share, weight

_TRIED = tl.constexpr(8)


@triton.jit  # type: ignore[untyped-decorator]
def cutoff_among_all(
    scores: tl.tensor,
    vocab: tl.tensor,
    room: tl.tensor,
    count: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    total: tl.tensor,
    best: tl.tensor,
    lowest: tl.tensor,
    scale: tl.tensor,
    ROOM: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """The least score that is kept.

    :param room: ``[ROOM]`` float32, overwritten.
    :param count: how many scores reach ``lowest``.
    :param top_k: 0 if it is off.
    :param total: what top-p is a share of; 0 if that is what top-k and min-p leave.
    """
    low = key(lowest).to(tl.int64)
    high = key(best).to(tl.int64) + 1
    if (top_k > 0) & (count > top_k):
        low = _search(scores, vocab, room, count, top_k.to(tl.int64), low, high, best, scale, True, ROOM, TILE)
    if top_p < 1:
        if total == 0:
            counts, weights = _sums(scores, vocab, low + tl.zeros([_TRIED], tl.int64), best, scale, TILE)
            count = tl.max(counts, axis=0)
            total = tl.max(weights, axis=0)
        target = share(total, top_p)
        low = _search(scores, vocab, room, count, target, low, high, best, scale, False, ROOM, TILE)
    return score(low.to(tl.int32))


@triton.jit  # type: ignore[untyped-decorator]
def _search(
    scores: tl.tensor,
    vocab: tl.tensor,
    room: tl.tensor,
    count: tl.tensor,
    target: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    best: tl.tensor,
    scale: tl.tensor,
    COUNTS: tl.constexpr,
    ROOM: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """As :func:`kernels.sampling.triton.keys.last_to_reach`, among all scores.

    :param count: how many there are from ``low`` on.
    :param target: of tokens if ``COUNTS``, else of weight.
    """
    above = tl.zeros([], tl.int64)
    count_above = tl.zeros([], tl.int32)
    while (count - count_above > ROOM) & (high - low > 1):
        tried = _cutoffs_to_try(low, high, scale)
        counts, weights = _sums(scores, vocab, tried, best, scale, TILE)
        sums = counts.to(tl.int64) if COUNTS else weights
        reaches = sums >= target
        low = tl.maximum(low, tl.max(tl.where(reaches, tried, low), axis=0))
        count = tl.minimum(count, tl.min(tl.where(reaches, counts, count), axis=0))
        high = tl.minimum(high, tl.min(tl.where(reaches, high, tried), axis=0))
        above = tl.maximum(above, tl.max(tl.where(reaches, above, sums), axis=0))
        count_above = tl.maximum(count_above, tl.max(tl.where(reaches, count_above, counts), axis=0))
    if high - low > 1:
        _gather_between(scores, vocab, room, low, high, ROOM, TILE)
        place = tl.arange(0, ROOM)
        x = tl.load(room + place, mask=place < count - count_above, other=float("-inf"))
        weights = (place < count - count_above).to(tl.int64) if COUNTS else weight(x, best, scale)
        low = last_to_reach(key(x), weights, above, target, low, high)
    return low


@triton.jit  # type: ignore[untyped-decorator]
def _cutoffs_to_try(low: tl.tensor, high: tl.tensor, scale: tl.tensor) -> tl.tensor:
    """``[_TRIED]`` int64 keys between ``low`` and ``high``, at even distances of their scores but one in the middle of
    the keys, so that the range shrinks whatever the scores are."""
    most = score((high - 1).to(tl.int32))
    least = tl.maximum(score(low.to(tl.int32)), most - 64 / scale)
    step = (most - least) / _TRIED
    place = tl.arange(0, _TRIED)
    tried = key(least + step * place).to(tl.int64)
    tried = tl.where(place == 0, (low + high) >> 1, tried)
    return tl.minimum(tl.maximum(tried, low + 1), high - 1)


@triton.jit  # type: ignore[untyped-decorator]
def _sums(
    scores: tl.tensor, vocab: tl.tensor, tried: tl.tensor, best: tl.tensor, scale: tl.tensor, TILE: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """How many scores reach each of the keys ``tried`` (int32) and what they weigh (int64), -inf never: both
    ``[_TRIED]``."""
    counts = tl.zeros([_TRIED], tl.int32)
    weights = tl.zeros([_TRIED], tl.int64)
    for first in range(0, vocab, TILE):
        at = first + tl.arange(0, TILE)
        x = tl.load(scores + at, mask=at < vocab, other=float("-inf"))
        reaches = (key(x)[:, None] >= tried.to(tl.int32)[None, :]) & (x > float("-inf"))[:, None]
        counts += tl.sum(reaches.to(tl.int32), axis=0)
        weights += tl.sum(tl.where(reaches, weight(x, best, scale)[:, None], 0), axis=0)
    return counts, weights


@triton.jit  # type: ignore[untyped-decorator]
def _gather_between(
    scores: tl.tensor,
    vocab: tl.tensor,
    room: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    ROOM: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """The scores whose keys are from ``low`` to below ``high``; they fit the room."""
    start = tl.zeros([], tl.int32)
    for first in range(0, vocab, TILE):
        at = first + tl.arange(0, TILE)
        x = tl.load(scores + at, mask=at < vocab, other=float("-inf"))
        keys = key(x)
        here = ((keys >= low.to(tl.int32)) & (keys < high.to(tl.int32)) & (x > float("-inf"))).to(tl.int32)
        slot = start + tl.cumsum(here, axis=0) - 1
        tl.store(room + slot, x, mask=(here > 0) & (slot < ROOM))
        start += tl.sum(here, axis=0)
    # Other threads wrote what this one reads next.
    tl.debug_barrier()
