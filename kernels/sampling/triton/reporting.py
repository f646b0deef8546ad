"""Log-probabilities of chosen tokens and of the best ones.

``[n, vocab]`` float32 is read once, by a survey at temperature 1 that also counts the tokens as good as the chosen
one; the best ``num_top`` tokens are in the ``num_top`` groups whose best scores are the best. 256 rows of 128,256 are
131 MB.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.sampling.result import Logprobs
from kernels.sampling.triton.best import first_best
from kernels.sampling.triton.keys import key, score
from kernels.sampling.triton.row import LOG2_E
from kernels.sampling.triton.survey import GROUP, empty_survey, load_groups, places, store_survey

_MOST_BY_GROUPS = 32
"""More of the best tokens than this are found by a sort, which nobody asks for in a step that must be quick."""

_TAKEN = tl.constexpr(-(2**31))
"""Below the key of -inf."""


def logprobs(logits: Tensor, chosen: Tensor, num_top: int) -> Logprobs:
    """See :func:`kernels.sampling.logprobs`."""
    n, vocab = logits.shape
    num_top = min(num_top, vocab)
    by_groups = num_top if num_top <= _MOST_BY_GROUPS else 0
    reported = Logprobs(
        torch.empty(n, dtype=torch.float32, device=logits.device),
        torch.empty(n, dtype=torch.int32, device=logits.device),
        torch.empty(n, by_groups, dtype=torch.int32, device=logits.device),
        torch.empty(n, by_groups, dtype=torch.float32, device=logits.device),
    )
    if not n:
        return reported._replace(top_ids=reported.top_ids.new_empty(0, num_top), top=reported.top.new_empty(0, num_top))
    log_total = torch.empty(n, dtype=torch.float32, device=logits.device)
    _launch(logits, chosen, reported, log_total, by_groups)
    if by_groups == num_top:
        return reported
    best = logits.sort(dim=1, descending=True, stable=True)
    return reported._replace(
        top_ids=best.indices[:, :num_top].to(torch.int32), top=best.values[:, :num_top] - log_total[:, None]
    )


def _launch(logits: Tensor, chosen: Tensor, reported: Logprobs, log_total: Tensor, num_top: int) -> None:
    n, vocab = logits.shape
    survey = empty_survey(logits)
    tile = tile_shape("sampling", "rank", "all", device_of(logits))
    tiles = triton.cdiv(vocab, tile["tile"])
    ranks = torch.empty(n, tiles, dtype=torch.int32, device=logits.device)
    _rank[(n, tiles)](
        logits,
        logits.stride(0),
        chosen,
        *survey,
        ranks,
        vocab,
        GROUP=GROUP,
        TILE=tile["tile"],
        num_warps=tile["num_warps"],
    )
    groups = survey.maxima.shape[1]
    _report[(n,)](
        logits,
        logits.stride(0),
        chosen,
        *survey,
        ranks,
        *reported,
        log_total,
        vocab,
        groups,
        tiles,
        num_top,
        ROOM=_MOST_BY_GROUPS,
        GROUP=GROUP,
        GROUPS=triton.next_power_of_2(groups),
        TILES=triton.next_power_of_2(tiles),
        num_warps=tile_shape("sampling", "report", "all", device_of(logits))["num_warps"],
    )


@triton.jit(do_not_specialize_on_alignment=["chosen"])  # type: ignore[untyped-decorator]
def _rank(
    logits: tl.tensor,
    stride: tl.tensor,
    chosen: tl.tensor,
    maxima: tl.tensor,
    masses: tl.tensor,
    ranks: tl.tensor,
    vocab: tl.tensor,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    scores = logits + i.to(tl.int64) * stride
    first = tl.program_id(1) * TILE
    at = first + places(GROUP, TILE)
    x = load_groups(scores, first, vocab, GROUP, TILE)
    chosen_score = tl.load(scores + tl.maximum(tl.load(chosen + i), 0))
    store_survey(x, LOG2_E, i, first, maxima, masses, vocab, GROUP, TILE)
    as_good = tl.sum(tl.sum(((x >= chosen_score) & (at < vocab)).to(tl.int32), axis=1), axis=0)
    tl.store(ranks + i.to(tl.int64) * tl.num_programs(1) + tl.program_id(1), as_good)


@triton.jit(do_not_specialize=["num_top"], do_not_specialize_on_alignment=["chosen", "top_ids", "top_logprobs"])  # type: ignore[untyped-decorator]
def _report(
    logits: tl.tensor,
    stride: tl.tensor,
    chosen: tl.tensor,
    maxima: tl.tensor,
    masses: tl.tensor,
    ranks: tl.tensor,
    chosen_logprobs: tl.tensor,
    chosen_ranks: tl.tensor,
    top_ids: tl.tensor,
    top_logprobs: tl.tensor,
    log_totals: tl.tensor,
    vocab: tl.tensor,
    groups: tl.tensor,
    tiles: tl.tensor,
    num_top: tl.tensor,
    ROOM: tl.constexpr,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    TILES: tl.constexpr,
) -> None:
    i = tl.program_id(0)
    scores = logits + i.to(tl.int64) * stride
    group = tl.arange(0, GROUPS)
    best_of = tl.load(maxima + i.to(tl.int64) * groups + group, mask=group < groups, other=float("-inf"))
    mass = tl.load(masses + i.to(tl.int64) * groups + group, mask=group < groups, other=0.0)
    best = tl.max(best_of, axis=0)
    # Against the best one, so that no exponential overflows. +inf, which a NaN became, makes it NaN.
    log_total = tl.log(tl.sum(mass * tl.exp2((best_of - best) * LOG2_E), axis=0))
    tl.store(log_totals + i, best + log_total)
    own_score = tl.load(scores + tl.maximum(tl.load(chosen + i), 0))
    tl.store(chosen_logprobs + i, own_score - best - log_total)
    tile = tl.arange(0, TILES)
    rank = tl.load(ranks + i.to(tl.int64) * tiles + tile, mask=tile < tiles, other=0)
    tl.store(chosen_ranks + i, tl.sum(rank, axis=0))
    keys = tl.where(group < groups, key(best_of), _TAKEN)
    _, candidates = _best(keys, group, tl.minimum(groups, num_top), ROOM)
    place = tl.arange(0, ROOM)
    at = candidates[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    known = (place < tl.minimum(groups, num_top))[:, None] & (at < vocab)
    x = tl.load(scores + at, mask=known, other=float("-inf"))
    keys = tl.reshape(tl.where(known, key(x), _TAKEN), [ROOM * GROUP])
    best_keys, best_tokens = _best(keys, tl.reshape(at, [ROOM * GROUP]), num_top, ROOM)
    tl.store(top_ids + i.to(tl.int64) * num_top + place, best_tokens, mask=place < num_top)
    tl.store(top_logprobs + i.to(tl.int64) * num_top + place, score(best_keys) - best - log_total, mask=place < num_top)


@triton.jit  # type: ignore[untyped-decorator]
def _best(keys: tl.tensor, ids: tl.tensor, count: tl.tensor, ROOM: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """The greatest ``count`` keys, best first, of equals the lower id, and their ids: ``[ROOM]`` each."""
    place = tl.arange(0, ROOM)
    best_keys = tl.full([ROOM], _TAKEN, tl.int32)
    best_ids = tl.zeros([ROOM], tl.int32)
    for nth in range(0, count):
        best_key, best_id = first_best(keys, ids)
        best_keys = tl.where(place == nth, best_key, best_keys)
        best_ids = tl.where(place == nth, best_id, best_ids)
        keys = tl.where(ids == best_id, _TAKEN, keys)
    return best_keys, best_ids
