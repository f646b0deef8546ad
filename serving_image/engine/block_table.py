"""The blocks of one request."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple


class BlockSpan(NamedTuple):
    """Consecutive blocks of a request's tokens in one group, from number ``first`` on."""

    first: int
    blocks: tuple[int, ...]


class DroppedBlock(NamedTuple):
    """A block that left a window before the step that filled it was read; ``turn`` tells whose turn it was."""

    number: int
    block: int
    turn: int


class GroupTable:
    """The blocks of one request in one group: ``blocks``, from number ``first`` on; those before have left the window.

    ``dropped`` are those of them that have yet to be offered to other requests.
    """

    __slots__ = ("blocks", "dropped", "first")

    def __init__(self, first: int, blocks: list[int]) -> None:
        self.first = first
        self.blocks = blocks
        self.dropped: list[DroppedBlock] = []

    @property
    def end(self) -> int:
        return self.first + len(self.blocks)

    def span(self, end: int) -> BlockSpan:
        """The blocks before number ``end``."""
        return BlockSpan(self.first, tuple(self.blocks[: end - self.first]))


class BlockTable:
    """The blocks of one request: a table for each group, or none while it holds no blocks.

    ``num_registered`` blocks of each group, the first ones, have been offered to other requests. Nothing changes before
    there are more than ``room`` tokens or ``moves_at`` of them are computed, when a window leaves a block behind. The
    digests of full blocks depend on the tokens alone, so they are computed once, for all groups, and outlive a
    preemption.
    """

    __slots__ = ("_cache_salt", "_chain", "_spans", "groups", "moves_at", "num_registered", "room")

    def __init__(self, cache_salt: str | None = None) -> None:
        self.groups: tuple[GroupTable, ...] = ()
        self.num_registered = 0
        self.room = self.moves_at = 0
        self._spans: tuple[int, tuple[BlockSpan, ...]] | None = None
        self._cache_salt = cache_salt
        self._chain: list[bytes] = []

    @property
    def num_held(self) -> int:
        """Blocks in all groups."""
        return sum(len(group.blocks) for group in self.groups)

    def changed(self, room: int, moves_at: int) -> None:
        """To be called after a change of ``groups``."""
        self.room, self.moves_at = room, moves_at
        self._spans = None

    def spans(self, num_blocks: int) -> tuple[BlockSpan, ...]:
        """What each group holds of the first ``num_blocks`` blocks."""
        if self._spans is None or self._spans[0] != num_blocks:
            self._spans = num_blocks, tuple(group.span(num_blocks) for group in self.groups)
        return self._spans[1]

    def digest(self, index: int, tokens: Sequence[int], block_size: int) -> bytes:
        """What identifies full block ``index`` and everything before it.

        ::

            salt ─► root ─► H(root, tokens of block 0) ─► H(that, tokens of block 1) ─► …

        A cryptographic hash, because a collision would show one tenant another's text.
        """
        chain = self._chain
        if not chain:
            # No salt and an empty one differ.
            chain.append(_hash(b"" if self._cache_salt is None else b"salt:" + self._cache_salt.encode()))
        while len(chain) < index + 2:
            start = (len(chain) - 1) * block_size
            chain.append(_hash(chain[-1] + array("i", tokens[start : start + block_size]).tobytes()))
        return chain[index + 1]


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()
