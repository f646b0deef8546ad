"""The best tokens that the programs of a row have found, each in its part of the row; the row's choice is the best of
them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.rows import SamplingState
from kernels.sampling.triton.parts import MOST_PARTS, cut
from kernels.sampling.triton.row import COUNTS, FLAGS, PENALIZES, integer, own


class Best(NamedTuple):
    """Both ``[n, parts]``: scores float32 and their tokens int32. ``tiles`` is how many tiles a part has."""

    scores: Tensor
    tokens: Tensor
    tiles: int


def empty_best(logits: Tensor) -> Best:
    """Room for those of ``logits`` ``[n, vocab]``."""
    n, vocab = logits.shape
    device = device_of(logits)
    tile = tile_shape("sampling", "draw", "all", device)
    parts = cut(n, triton.cdiv(vocab, tile["tile"]), device, tile["programs_per_multiprocessor"])
    return Best(
        torch.empty(n, parts.number, dtype=torch.float32, device=logits.device),
        torch.empty(n, parts.number, dtype=torch.int32, device=logits.device),
        parts.tiles,
    )


def choose(best: Best, row_of: Tensor, position: Tensor, state: SamplingState) -> Tensor:
    """The token of every row, ``[n]`` int32, also into the requests' tokens and counts; see
    :func:`kernels.sampling.sample`."""
    chosen = torch.empty_like(row_of)
    _choose[(row_of.shape[0],)](
        best.scores,
        best.tokens,
        best.scores.shape[1],
        row_of,
        position,
        state.parameters,
        state.tokens,
        state.tokens.stride(0),
        chosen,
        PARTS=MOST_PARTS,
        num_warps=1,
    )
    return chosen


@triton.jit  # type: ignore[untyped-decorator]
def first_best(scores: tl.tensor, tokens: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The greatest score and its token, of equal ones the lowest."""
    best = tl.max(scores, axis=0)
    return best, tl.min(tl.where(scores == best, tokens, 2147483647), axis=0)


@triton.jit(do_not_specialize=["parts"], do_not_specialize_on_alignment=["row_of", "position"])  # type: ignore[untyped-decorator]
def _choose(
    best_scores: tl.tensor,
    best_tokens: tl.tensor,
    parts: tl.tensor,
    row_of: tl.tensor,
    position: tl.tensor,
    parameters: tl.tensor,
    tokens: tl.tensor,
    stride: tl.tensor,
    chosen: tl.tensor,
    PARTS: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    row = tl.load(row_of + i)
    if row < 0:
        tl.store(chosen + i, -1)
        return
    part = tl.arange(0, PARTS)
    at = i.to(tl.int64) * parts + part
    scores = tl.load(best_scores + at, mask=part < parts, other=float("-inf"))
    best, token = first_best(scores, tl.load(best_tokens + at, mask=part < parts, other=0))
    found = (best > float("-inf")) & (best < float("inf"))
    tl.store(chosen + i, tl.where(found, token, -1))
    # A failed row's next step may already be on its way: it must find some token that there is.
    token = tl.where(found, token, 0)
    place = tl.load(position + i)
    tl.store(tokens + row.to(tl.int64) * stride + place, token, mask=place < stride)
    if integer(parameters, row, FLAGS) & PENALIZES != 0:
        counter = own(parameters, row, COUNTS) + token
        tl.store(counter, tl.load(counter) + 1)
