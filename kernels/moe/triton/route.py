# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""Routing in one launch: a program scores and chooses for a few tokens.

Reads ``tokens x experts`` logits once and writes 8 bytes for each choice: at 8,192 tokens and 256 experts in float32,
8.4 MB and 0.5 MB, 2 µs of an H200's memory (not measured). A decode step's is one short wait for memory and ``top_k``
reductions across a warp.

An expert's rank is one whole number, its score above and its index, turned round, below. So that the largest is unique,
equal scores go to the lowest index, and whatever the logits are, NaN included, all choices differ and exist.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import device_of, tile_shape
from kernels.moe.router import Router, Routing


def route(logits: Tensor, router: Router, bias: Tensor | None) -> Routing:
    """See :func:`kernels.moe.route`."""
    tokens, num_experts = logits.shape
    weights = logits.new_empty((tokens, router.top_k), dtype=torch.float32)
    experts = logits.new_empty((tokens, router.top_k), dtype=torch.int32)
    if tokens == 0:
        return Routing(weights, experts)
    tile = tile_shape("moe", "route", "any", device_of(logits))
    group_size = num_experts // router.groups
    padded = triton.next_power_of_2(router.groups), triton.next_power_of_2(group_size)
    block_t = max(1, tile["elements"] // (padded[0] * padded[1]))
    _route[(triton.cdiv(tokens, block_t),)](
        logits, bias, weights, experts, tokens, router.scaling, router.jitter,
        SCORING=router.scoring, TOP_K=router.top_k, RENORMALISE=router.renormalise, GROUP_SIZE=group_size,
        GROUPS=router.groups, TOP_GROUPS=router.top_groups, GROUP_BEST=router.group_best, PADDED_GROUPS=padded[0],
        PADDED_SIZE=padded[1], SLOTS=triton.next_power_of_2(router.top_k), BLOCK_T=block_t,
        num_warps=tile["num_warps"],
    )  # fmt: skip
    return Routing(weights, experts)


@triton.jit(do_not_specialize=["tokens"])
def _route(
    logits, bias, weights, experts, tokens, scaling, jitter,
    SCORING: tl.constexpr, TOP_K: tl.constexpr, RENORMALISE: tl.constexpr, GROUP_SIZE: tl.constexpr,
    GROUPS: tl.constexpr, TOP_GROUPS: tl.constexpr, GROUP_BEST: tl.constexpr, PADDED_GROUPS: tl.constexpr,
    PADDED_SIZE: tl.constexpr, SLOTS: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    # Each group is padded to a power of two, so that the groups are an axis of their own.
    column = tl.arange(0, PADDED_GROUPS * PADDED_SIZE)
    exists = (column % PADDED_SIZE < GROUP_SIZE) & (column < GROUPS * PADDED_SIZE)
    expert = column // PADDED_SIZE * GROUP_SIZE + column % PADDED_SIZE
    at = token.to(tl.int64)[:, None] * (GROUPS * GROUP_SIZE) + expert[None, :]
    inside = (token < tokens)[:, None] & exists[None, :]
    logit = tl.load(logits + at, inside, other=0.0).to(tl.float32)
    # Comparing with NaN is false.
    logit = tl.where(exists[None, :] & (logit >= float("-inf")), logit, float("-inf"))
    score = _scores(logit, SCORING)
    ranked = logit if bias is None and GROUP_BEST == 1 else score
    if bias is not None:
        ranked += tl.load(bias + expert, exists, other=0.0).to(tl.float32)[None, :]
    rank = tl.where(exists[None, :], _rank(ranked, expert[None, :]), _NONE)
    if TOP_GROUPS < GROUPS:
        rank = _in_best_groups(rank, GROUPS, TOP_GROUPS, GROUP_BEST, PADDED_GROUPS, PADDED_SIZE, BLOCK_T)
    slot = tl.arange(0, SLOTS)[None, :]
    weight = tl.zeros((BLOCK_T, SLOTS), tl.float32)
    choice = tl.zeros((BLOCK_T, SLOTS), tl.int32)
    left = logit
    for turn in range(TOP_K):
        best = tl.max(rank, 1)[:, None]
        is_best = rank == best
        if SCORING == "sparsemixer":
            worth = _share_of_close(logit, left, is_best, jitter)
            left = tl.where(is_best, float("-inf"), left)
        else:
            worth = tl.sum(tl.where(is_best, score, 0.0), 1)[:, None]
        weight = tl.where(slot == turn, worth, weight)
        choice = tl.where(slot == turn, _index(best), choice)
        rank = tl.where(is_best, _NONE, rank)
    if RENORMALISE:
        weight /= tl.sum(weight, 1)[:, None] + 1e-20
    at = token.to(tl.int64)[:, None] * TOP_K + slot
    inside = (token < tokens)[:, None] & (slot < TOP_K)
    tl.store(weights + at, weight * scaling, inside)
    tl.store(experts + at, choice, inside)


@triton.jit
def _scores(logit, SCORING: tl.constexpr):
    if SCORING == "softmax":
        share = tl.exp(logit - tl.max(logit, 1)[:, None])
        return share / tl.sum(share, 1)[:, None]
    if SCORING == "sigmoid":
        return tl.sigmoid(logit)
    return logit


@triton.jit
def _share_of_close(logit, left, is_best, jitter):
    """The share of the best among those left that are close to it, ``[tokens, 1]``."""
    best = tl.max(tl.where(is_best, left, float("-inf")), 1)[:, None]
    # Zero over zero is close: the best itself may be 0.
    far = (best - left) / tl.maximum(tl.abs(logit), best) > 2 * jitter
    return 1 / tl.sum(tl.where(far, 0.0, tl.exp(left - best)), 1)[:, None]


@triton.jit
def _in_best_groups(
    rank, GROUPS: tl.constexpr, TOP_GROUPS: tl.constexpr, GROUP_BEST: tl.constexpr, PADDED_GROUPS: tl.constexpr,
    PADDED_SIZE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """``rank`` without the experts of other groups."""
    grouped = tl.reshape(rank, (BLOCK_T, PADDED_GROUPS, PADDED_SIZE))
    worth = tl.zeros((BLOCK_T, PADDED_GROUPS), tl.float32)
    remaining = grouped
    for _ in range(GROUP_BEST):
        best = tl.max(remaining, 2)
        worth += _score(best)
        remaining = tl.where(remaining == best[:, :, None], _NONE, remaining)
    group = tl.arange(0, PADDED_GROUPS)[None, :]
    group_rank = tl.where(group < GROUPS, _rank(worth, group), _NONE)
    in_best = tl.zeros((BLOCK_T, PADDED_GROUPS), tl.int1)
    for _ in range(TOP_GROUPS):
        is_best = group_rank == tl.max(group_rank, 1)[:, None]
        in_best = in_best | is_best
        group_rank = tl.where(is_best, _NONE, group_rank)
    return tl.reshape(tl.where(in_best[:, :, None], grouped, _NONE), (BLOCK_T, PADDED_GROUPS * PADDED_SIZE))


_NONE: tl.constexpr = tl.constexpr(-(2**63))
_TOP: tl.constexpr = tl.constexpr(2**31 - 1)


@triton.jit
def _rank(score, index):
    """A whole number that is larger for a larger score and, of equal scores, for the lower index."""
    # Bits of positive numbers are in order already, those of negative ones in reverse. Minus zero equals zero.
    bits = tl.where(score == 0, 0.0, score).to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ _TOP, bits)
    return (bits.to(tl.int64) << 32) + (_TOP - index)


@triton.jit
def _index(rank):
    return _TOP - (rank & 0xFFFFFFFF).to(tl.int32)


@triton.jit
def _score(rank):
    bits = (rank >> 32).to(tl.int32)
    return tl.where(bits < 0, bits ^ _TOP, bits).to(tl.float32, bitcast=True)
