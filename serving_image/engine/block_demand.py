"""How many blocks of the key/value cache a request needs, and for which of its tokens."""

from __future__ import annotations

import sys
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class GroupDemand(NamedTuple):
    """What a request needs of one group of layers (see :mod:`serving_image.models.cache_layout`).

    ``window`` is how many tokens a query sees, itself included; None: all. ``most`` blocks hold a window before any
    tokens of one step, and these; None where there is no window.
    """

    block_size: int
    window: int | None
    most: int | None

    def first(self, num_computed_tokens: int) -> int:
        """The first block that the query after so many tokens reads, or a later one."""
        if self.window is None:
            return 0
        return max(0, num_computed_tokens - self.window + 1) // self.block_size

    def end(self, num_blocks: int, num_computed_tokens: int) -> int:
        """The end of what is held, if the request's tokens fill ``num_blocks``."""
        return num_blocks if self.most is None else min(num_blocks, self.first(num_computed_tokens) + self.most)

    def moves_at(self, first: int) -> int:
        """How many tokens are computed when block number ``first`` is no longer needed."""
        return sys.maxsize if self.window is None else (first + 1) * self.block_size + self.window - 1


@dataclass(frozen=True)
class BlockDemand:
    """The groups of layers, and what requests need of each.

    A full group keeps every token. A windowed one keeps what the next query sees, and has room for the longest step
    after it; it moves on before each step, and so never holds more than before::

        window 6, blocks of 4, 9 tokens computed, steps of up to 3      needed: tokens 4 … 11

        block      0           1           2           3
        token      0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
                   ╰─ freed ─╯ └── window ───┘  └ step ┘ ╰ not yet ╯

    :ivar max_step_tokens: the most tokens of a request that a step runs; without windows it does not matter.
    """

    block_size: int
    windows: tuple[int | None, ...] = (None,)
    max_step_tokens: int = 1

    @cached_property
    def groups(self) -> tuple[GroupDemand, ...]:
        return tuple(GroupDemand(self.block_size, window, self._most(window)) for window in self.windows)

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks of one group that this many tokens fill."""
        return -(-num_tokens // self.block_size)

    def most(self, num_tokens: int) -> int:
        """The most blocks that a request ever holds which grows to so many tokens."""
        return self._most_of_blocks(self.blocks_for(num_tokens))

    def longest(self, num_blocks: int, limit: int) -> int:
        """The most tokens, up to ``limit``, that a request may grow to in ``num_blocks`` blocks of its own."""
        candidates = range(1, self.blocks_for(limit) + 1)
        return min(limit, self.block_size * bisect_right(candidates, num_blocks, key=self._most_of_blocks))

    def _most_of_blocks(self, num_blocks: int) -> int:
        return sum(num_blocks if group.most is None else min(num_blocks, group.most) for group in self.groups)

    def _most(self, window: int | None) -> int | None:
        """Blocks that a window and a step reach into, wherever they begin: all but one token may lie in others."""
        if window is None:
            return None
        return (window + self.max_step_tokens - 3) // self.block_size + 2
