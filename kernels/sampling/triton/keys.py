"""Float32 scores as integers of the same order, and searching among these.

What a token weighs is an integer as well, so that sums are exact: the result of a search does not depend on the order
in which its candidates lie, nor on how many threads add them up.
"""

from __future__ import annotations

import triton
import triton.language as tl

_ONE = tl.constexpr(float(2**40))
"""The weight of the best token. A vocabulary of 2**22 tokens like it would still fit 63 bits; a token of less than
2**-40 of its probability weighs nothing."""


@triton.jit  # type: ignore[untyped-decorator]
def key(x: tl.tensor) -> tl.tensor:
    """int32; equal scores have equal keys, 0 and -0 too."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit  # type: ignore[untyped-decorator]
def score(keys: tl.tensor) -> tl.tensor:
    """The score of an int32 key."""
    return (keys ^ ((keys >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def weight(x: tl.tensor, best: tl.tensor, scale: tl.tensor) -> tl.tensor:
    """int64: what scores weigh against the best one of their row; ``scale`` is log2(e) over the temperature."""
    return whole(tl.exp2((x - best) * scale))


@triton.jit  # type: ignore[untyped-decorator]
def whole(mass: tl.tensor) -> tl.tensor:
    """int64: the weight of what weighs ``mass`` times as much as the best token."""
    return (mass * _ONE).to(tl.int64)


@triton.jit  # type: ignore[untyped-decorator]
def share(total: tl.tensor, part: tl.tensor) -> tl.tensor:
    """The least weight that is ``part`` of ``total`` or more, at least 1."""
    return tl.maximum(tl.ceil(total.to(tl.float64) * part.to(tl.float64)).to(tl.int64), 1)


@triton.jit  # type: ignore[untyped-decorator]
def last_to_reach(
    keys: tl.tensor, weights: tl.tensor, above: tl.tensor, target: tl.tensor, low: tl.tensor, high: tl.tensor
) -> tl.tensor:
    """The greatest key at and above which ``weights`` and ``above`` sum to ``target`` or more.

    :param above: what keys that are not among ``keys`` weigh, all of them at least ``high``.
    :param low: int64, the result if no greater key reaches the target.
    :param high: int64, a key that does not reach it.
    """
    while high - low > 1:
        middle = (low + high) >> 1
        reaches = above + tl.sum(tl.where(keys >= middle.to(tl.int32), weights, 0), axis=0) >= target
        low = tl.where(reaches, middle, low)
        high = tl.where(reaches, high, middle)
    return low
