"""The best of score plus noise.

``[n, vocab]`` float32 in, a token per row out. A row is read once, 4 · vocab bytes, and a random one costs about 100
operations per token for its noise; of a truncated row only the groups that hold kept tokens are read. 256 rows of
128,256 are 131 MB.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.rows import SamplingState
from kernels.sampling.triton.noise import gumbel
from kernels.sampling.triton.row import (
    COUNTS,
    FLAGS,
    GREEDY,
    INVERSE_TEMPERATURE,
    PENALIZES,
    PROMPT_LENGTH,
    SEED,
    TRUNCATES,
    integer,
    long,
    number,
    own,
    poisoned_to_infinity,
)
from kernels.sampling.triton.survey import GROUP


class Kept(NamedTuple):
    """What truncation leaves of each row: the tokens of at least ``cutoff`` ``[n]`` float32; ``maxima`` ``[n, groups]``
    float32 says where to look for them. Both mean something for truncated rows only."""

    cutoff: Tensor
    maxima: Tensor


def draw(logits: Tensor, row_of: Tensor, position: Tensor, state: SamplingState, kept: Kept | None) -> Tensor:
    """See :func:`kernels.sampling.sample`.

    :param kept: None if no row truncates.
    """
    n, vocab = logits.shape
    chosen = torch.empty(n, dtype=torch.int32, device=logits.device)
    if not n:
        return chosen
    device = device_of(logits)
    tile = tile_shape("sampling", "draw", "all", device)
    tiles = triton.cdiv(vocab, tile["tile"])
    splits = min(tiles, triton.cdiv(device.multiprocessors * tile["programs_per_multiprocessor"], n))
    splits = triton.cdiv(tiles, triton.cdiv(tiles, splits))
    scores = torch.empty(n, splits, dtype=torch.float32, device=logits.device)
    tokens = torch.empty(n, splits, dtype=torch.int32, device=logits.device)
    _draw[(n, splits)](
        logits,
        logits.stride(0),
        row_of,
        position,
        state.parameters,
        scores if kept is None else kept.cutoff,
        scores if kept is None else kept.maxima,
        scores,
        tokens,
        vocab,
        triton.cdiv(tiles, splits),
        HAS_KEPT=kept is not None,
        GROUPS=triton.cdiv(vocab, GROUP),
        GROUP=GROUP,
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )
    _choose[(n,)](
        scores,
        tokens,
        splits,
        row_of,
        position,
        state.parameters,
        state.tokens,
        state.tokens.stride(0),
        chosen,
        SPLITS=triton.next_power_of_2(splits),
        num_warps=1,
    )
    return chosen


@triton.jit  # type: ignore[untyped-decorator]
def _draw(
    logits: tl.tensor,
    stride: tl.tensor,
    row_of: tl.tensor,
    position: tl.tensor,
    parameters: tl.tensor,
    cutoffs: tl.tensor,
    maxima: tl.tensor,
    best_scores: tl.tensor,
    best_tokens: tl.tensor,
    vocab: tl.tensor,
    tiles: tl.tensor,
    HAS_KEPT: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """The best token of ``tiles`` tiles of a row, for each program."""
    i = tl.program_id(0)
    row = tl.load(row_of + i)
    if row < 0:
        return
    scores = logits + i.to(tl.int64) * stride
    first = tl.program_id(1) * tiles * TILE
    flags = integer(parameters, row, FLAGS)
    seed = long(parameters, row, SEED)
    index = tl.load(position + i) - integer(parameters, row, PROMPT_LENGTH)
    # Scores in units of ln 2, as the noise is.
    scale = number(parameters, row, INVERSE_TEMPERATURE) * 1.4426950408889634
    best = tl.full([TILE], float("-inf"), tl.float32)
    best_at = tl.zeros([TILE], tl.int32)
    if flags & GREEDY != 0:
        for tile in range(tiles):
            at = first + tile * TILE + tl.arange(0, TILE)
            best, best_at = _better(best, best_at, _load(scores, at, at < vocab), at)
    elif HAS_KEPT and flags & TRUNCATES != 0:
        cutoff = tl.load(cutoffs + i)
        for tile in range(tiles):
            at = first + tile * TILE + tl.arange(0, TILE)
            highest = tl.load(maxima + i.to(tl.int64) * GROUPS + at // GROUP, mask=at < vocab, other=float("-inf"))
            here = (highest >= cutoff) & (highest > float("-inf"))
            if tl.max(here.to(tl.int32), axis=0) > 0:
                x = _load(scores, at, here)
                noise = gumbel(seed, index, first + tile * TILE, TILE)
                best, best_at = _better(best, best_at, tl.where(x >= cutoff, x * scale + noise, float("-inf")), at)
    else:
        for tile in range(tiles):
            at = first + tile * TILE + tl.arange(0, TILE)
            x = _load(scores, at, at < vocab)
            noise = gumbel(seed, index, first + tile * TILE, TILE)
            best, best_at = _better(best, best_at, x * scale + noise, at)
    score, token = first_best(best, best_at)
    split = i.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    tl.store(best_scores + split, score)
    tl.store(best_tokens + split, token)


@triton.jit  # type: ignore[untyped-decorator]
def _load(scores: tl.tensor, at: tl.tensor, mask: tl.tensor) -> tl.tensor:
    return poisoned_to_infinity(tl.load(scores + at, mask=mask, other=float("-inf")))


@triton.jit  # type: ignore[untyped-decorator]
def _better(best: tl.tensor, best_at: tl.tensor, score: tl.tensor, at: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Element by element; what is there already has the lower token, so it stays if they are equal."""
    better = score > best
    return tl.where(better, score, best), tl.where(better, at, best_at)


@triton.jit  # type: ignore[untyped-decorator]
def first_best(scores: tl.tensor, tokens: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The greatest score and its token, of equal ones the lowest."""
    best = tl.max(scores, axis=0)
    return best, tl.min(tl.where(scores == best, tokens, 2147483647), axis=0)


@triton.jit  # type: ignore[untyped-decorator]
def _choose(
    best_scores: tl.tensor,
    best_tokens: tl.tensor,
    splits: tl.tensor,
    row_of: tl.tensor,
    position: tl.tensor,
    parameters: tl.tensor,
    tokens: tl.tensor,
    stride: tl.tensor,
    chosen: tl.tensor,
    SPLITS: tl.constexpr,
) -> None:
    """The best of a row's splits: into the result, the request's tokens and its counts."""
    i = tl.program_id(0)
    row = tl.load(row_of + i)
    if row < 0:
        tl.store(chosen + i, -1)
        return
    split = tl.arange(0, SPLITS)
    at = i.to(tl.int64) * splits + split
    scores = tl.load(best_scores + at, mask=split < splits, other=float("-inf"))
    best, token = first_best(scores, tl.load(best_tokens + at, mask=split < splits, other=0))
    found = (best > float("-inf")) & (best < float("inf"))
    tl.store(chosen + i, tl.where(found, token, -1))
    # A failed row's next step may already be on its way: it must find some token that there is.
    token = tl.where(found, token, 0)
    tl.store(tokens + row.to(tl.int64) * stride + tl.load(position + i), token, mask=tl.load(position + i) < stride)
    if integer(parameters, row, FLAGS) & PENALIZES != 0:
        counter = own(parameters, row, COUNTS) + token
        tl.store(counter, tl.load(counter) + 1)
