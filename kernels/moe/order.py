"""The choices of all tokens, sorted by expert."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SortedTokens(NamedTuple):
    """Choices grouped by expert, each expert's run padded to whole blocks, so that a block of a grouped product belongs
    to one expert.

    A choice is ``token * top_k + slot``. With blocks of 4 and ``experts = [[0, 2], [2, 0], [2, 0]]``::

        order          0  3  5  6* │ 1  2  4  6* │ …        * no choice: the number of choices
        block_experts       0      │      2      │ -1

    :ivar order: ``[max_blocks(…) * block_m]`` int32. What lies in unused blocks is undefined.
    :ivar block_experts: ``[max_blocks(…)]`` int32, -1 for unused blocks, which come last.
    """

    order: Tensor
    block_experts: Tensor


def max_blocks(choices: int, num_experts: int, block_m: int) -> int:
    """The most blocks that so many choices can take: each expert that is used wastes at most ``block_m - 1`` rows."""
    return (choices + min(num_experts, choices) * (block_m - 1)) // block_m
