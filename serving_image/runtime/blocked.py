"""Searches along the rows of ``[rows, vocab]`` in two levels: first which block of 128 columns, then where in it.

::

    row        │ 128 values │ 128 values │ 128 values │ …      read once, by a fast vectorised reduction
    summaries  │     s      │     s      │     s      │ …      a few hundred per row: searched exactly
                                  └─► only this block is looked at again

Each row's result is bitwise the same whatever the other rows are: every reduction here runs along one block or one row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 128


class Located(NamedTuple):
    """A column per row, ``[rows]`` int64, and whether there was one to find, ``[rows]`` bool; else the column is 0."""

    columns: Tensor
    found: Tensor


def first_best(values: Tensor) -> Located:
    """The first of each row's greatest values; nothing is found in a row with a NaN or +inf, or only -inf.

    :param values: ``[rows, columns]`` floating point.
    """
    blocks = _blocks(values, float("-inf"))
    block = blocks.amax(dim=2).argmax(dim=1)
    inside = _row_block(blocks, block)
    offset = inside.argmax(dim=1)
    found = inside.gather(1, offset[:, None])[:, 0].isfinite()
    return Located(torch.where(found, block * _BLOCK + offset, 0), found)


def locate(weights: Tensor, fraction: Tensor) -> Located:
    """Where the running sum of each row first exceeds ``fraction`` of the row's total.

    :param weights: ``[rows, columns]``, not negative, not normalised.
    :param fraction: ``[rows, 1]`` float64 in [0, 1).

    With uniform random fractions this samples by inverting the distribution function. Sums are in float64, whose
    rounding cannot hide even a token of probability 1e-12 among 100,000; a column of weight 0 is never chosen.
    Nothing is found in a row whose total is 0 or NaN.
    """
    blocks = _blocks(weights, 0.0)
    # A NaN would send the search past the last column.
    cumulative = blocks.sum(dim=2, dtype=torch.float64).cumsum(dim=1).nan_to_num_(nan=0.0)
    total = cumulative[:, -1:]
    threshold = fraction * total
    block = _first_above(cumulative, threshold)
    before = torch.where(block > 0, cumulative.gather(1, (block - 1).clamp_min_(0)), 0.0)
    inside = _row_block(blocks, block[:, 0]).cumsum(dim=1, dtype=torch.float64).nan_to_num_(nan=0.0)
    offset = _first_above(inside, threshold - before)
    found = total[:, 0] > 0
    return Located(torch.where(found, (block * _BLOCK + offset)[:, 0], 0), found)


class Top(NamedTuple):
    """The greatest values of each row, best first, and their columns: both ``[rows, count]``."""

    values: Tensor
    columns: Tensor


def top(values: Tensor, count: int) -> Top:
    """The ``count`` greatest values of each row of ``values`` ``[rows, columns]``.

    They lie in the ``count`` blocks of the greatest maxima, so where that is few, only these are searched.
    """
    num_rows, num_columns = values.shape
    if count == 0 or 4 * count * _BLOCK > num_columns:
        return Top(*values.topk(count))
    blocks = _blocks(values, float("-inf"))
    chosen = blocks.amax(dim=2).topk(count).indices
    candidates = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).view(num_rows, count * _BLOCK)
    best = candidates.topk(count)
    columns = chosen.gather(1, best.indices // _BLOCK) * _BLOCK + best.indices % _BLOCK
    return Top(best.values, columns)


def _blocks(values: Tensor, fill: float) -> Tensor:
    """``[rows, blocks, 128]``: a view where the columns divide evenly, else a copy padded with ``fill``."""
    missing = -values.shape[1] % _BLOCK
    if missing:
        values = torch.nn.functional.pad(values, (0, missing), value=fill)
    return values.reshape(values.shape[0], values.shape[1] // _BLOCK, _BLOCK)


def _row_block(blocks: Tensor, block: Tensor) -> Tensor:
    """Block ``block[r]`` of each row ``r``: ``[rows, 128]``."""
    return blocks.gather(1, block[:, None, None].expand(-1, 1, _BLOCK))[:, 0]


def _first_above(cumulative: Tensor, threshold: Tensor) -> Tensor:
    """The first column of each row that exceeds its threshold, ``[rows, 1]``; never one that adds nothing."""
    index = torch.searchsorted(cumulative, threshold, right=True)
    # A block's sum and the running sum within it round differently, so what is left of a threshold may reach the end of
    # the block: then the last column that has weight is meant.
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.minimum(index, last)
