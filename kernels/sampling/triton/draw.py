"""The best of score plus noise.

``[n, vocab]`` float32 in, read once, 4 · vocab bytes per row: 131 MB for 256 rows of 128,256. A greedy row needs 2
operations per token, a random one about 80, nearly all for its noise: where all 256 are random and none is truncated,
the operations are the floor. Rows that truncation has left few tokens of have been drawn by it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.rows import SamplingState
from kernels.sampling.triton.best import Best, first_best
from kernels.sampling.triton.noise import gumbel
from kernels.sampling.triton.row import (
    FLAGS,
    GREEDY,
    INVERSE_TEMPERATURE,
    LOG2_E,
    PROMPT_LENGTH,
    SEED,
    TRUNCATES,
    integer,
    long,
    number,
    poisoned_to_infinity,
)
from kernels.sampling.triton.truncation import Kept


def draw(logits: Tensor, row_of: Tensor, position: Tensor, state: SamplingState, kept: Kept | None, best: Best) -> None:
    """Find the best token of every part of every row that has not been drawn.

    :param kept: None if no row truncates.
    :param best: written.
    """
    n, vocab = logits.shape
    tile = tile_shape("sampling", "draw", "all", device_of(logits))
    _draw[(n, best.scores.shape[1])](
        logits,
        logits.stride(0),
        row_of,
        position,
        state.parameters,
        best.scores if kept is None else kept.cutoff,
        best.tokens if kept is None else kept.drawn,
        best.scores,
        best.tokens,
        vocab,
        best.tiles,
        HAS_KEPT=kept is not None,
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )


@triton.jit(do_not_specialize=["tiles"], do_not_specialize_on_alignment=["row_of", "position"])  # type: ignore[untyped-decorator]
def _draw(
    logits: tl.tensor,
    stride: tl.tensor,
    row_of: tl.tensor,
    position: tl.tensor,
    parameters: tl.tensor,
    cutoffs: tl.tensor,
    drawn: tl.tensor,
    best_scores: tl.tensor,
    best_tokens: tl.tensor,
    vocab: tl.tensor,
    tiles: tl.tensor,
    HAS_KEPT: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    row = tl.load(row_of + i)
    if row < 0:
        return
    part = i.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    flags = integer(parameters, row, FLAGS)
    cutoff = float("-inf")
    if HAS_KEPT:  # noqa: SIM102 (one of the two is known when this is compiled)
        if flags & TRUNCATES != 0:
            if tl.load(drawn + i) != 0:
                # Whose token is in the first part.
                tl.store(best_scores + part, float("-inf"), mask=tl.program_id(1) > 0)
                return
            cutoff = tl.load(cutoffs + i)
    scores = logits + i.to(tl.int64) * stride
    first = tl.program_id(1) * tiles * TILE
    if flags & GREEDY != 0:
        score, token = _greatest(scores, first, vocab, tiles, TILE)
    else:
        seed = long(parameters, row, SEED)
        index = tl.load(position + i) - integer(parameters, row, PROMPT_LENGTH)
        # In units of ln 2, as the noise is.
        scale = number(parameters, row, INVERSE_TEMPERATURE) * LOG2_E
        score, token = _greatest_with_noise(scores, cutoff, seed, index, scale, first, vocab, tiles, TILE)
    tl.store(best_scores + part, score)
    tl.store(best_tokens + part, token)


@triton.jit  # type: ignore[untyped-decorator]
def _greatest(
    scores: tl.tensor, first: tl.tensor, vocab: tl.tensor, tiles: tl.tensor, TILE: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    best = tl.full([TILE], float("-inf"), tl.float32)
    best_at = tl.zeros([TILE], tl.int32)
    for tile in range(tiles):
        at = first + tile * TILE + tl.arange(0, TILE)
        best, best_at = _better(best, best_at, _load(scores, at, vocab), at)
    score, token = first_best(best, best_at)
    return score, token


@triton.jit  # type: ignore[untyped-decorator]
def _greatest_with_noise(
    scores: tl.tensor,
    cutoff: tl.tensor,
    seed: tl.tensor,
    index: tl.tensor,
    scale: tl.tensor,
    first: tl.tensor,
    vocab: tl.tensor,
    tiles: tl.tensor,
    TILE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    best = tl.full([TILE], float("-inf"), tl.float32)
    best_at = tl.zeros([TILE], tl.int32)
    for tile in range(tiles):
        at = first + tile * TILE + tl.arange(0, TILE)
        x = _load(scores, at, vocab)
        noisy = x * scale + gumbel(seed, index, first + tile * TILE, TILE)
        best, best_at = _better(best, best_at, tl.where(x >= cutoff, noisy, float("-inf")), at)
    score, token = first_best(best, best_at)
    return score, token


@triton.jit  # type: ignore[untyped-decorator]
def _load(scores: tl.tensor, at: tl.tensor, vocab: tl.tensor) -> tl.tensor:
    return poisoned_to_infinity(tl.load(scores + at, mask=at < vocab, other=float("-inf")))


@triton.jit  # type: ignore[untyped-decorator]
def _better(best: tl.tensor, best_at: tl.tensor, score: tl.tensor, at: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Element by element; what is there already has the lower token, so it stays if they are equal."""
    better = score > best
    return tl.where(better, score, best), tl.where(better, at, best_at)
