"""Who owns which block of the key/value cache, and what freed blocks still hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from serving_image.engine.block_demand import BlockDemand
from serving_image.engine.block_table import BlockTable, DroppedBlock, GroupTable


class CachedPrefix(NamedTuple):
    """Where a request may start: after ``num_blocks`` full blocks, of which ``blocks`` are what each group needs."""

    num_blocks: int
    blocks: tuple[list[int], ...]


class BlockPool:
    """All blocks of the cache. A full block whose tokens were computed can be shared, even after it was freed.

    ::

                 start, grow                  register
        free, empty ─────► held, 1 reference ──────────► held and cached, 1 or more references ◄─┐
           ▲  ▲               │                                       │ release                  │ start, with what
           │  └── release ────┘                                       ▼ or out of the window     │ lookup found
           └──────────────── taken for other tokens ◄─────── free, still cached ─────────────────┘

    Any group of layers may take any block; what it holds is known by group and digest. Blocks are taken from the front
    of one queue. Empty ones go there when freed; cached ones to the back, a request's last block first, because the
    first blocks of a chain are the likeliest to be asked for again and useless without them are the rest. Every
    operation on a block is O(1). Invariant: ``num_free + num_held == num_blocks``; cached blocks without a reference
    count as free.
    """

    def __init__(self, num_blocks: int, demand: BlockDemand, *, enable_prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.demand = demand
        self.block_size = demand.block_size
        self.enable_prefix_caching = enable_prefix_caching
        self._references = [0] * num_blocks
        self._turns = [0] * num_blocks
        self._num_held = 0
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._block_of: tuple[dict[bytes, int], ...] = tuple({} for _ in demand.groups)
        self._content_of: dict[int, tuple[int, bytes]] = {}

    @property
    def num_groups(self) -> int:
        """Groups of layers: the most blocks that a request may need for one token more."""
        return len(self.demand.groups)

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, empty or cached."""
        return len(self._free)

    @property
    def num_held(self) -> int:
        """Blocks that tables hold, each counted once."""
        return self._num_held

    @property
    def num_cached(self) -> int:
        """Blocks that a lookup can find, held or free."""
        return len(self._content_of)

    def lookup(self, table: BlockTable, tokens: Sequence[int], limit: int) -> CachedPrefix:
        """The longest prefix of ``tokens``, of ``limit`` at most, after which a request with this salt may start.

        Cached are all of its blocks in full groups, and in windowed ones those that the window before its end reaches.
        """
        end = min(limit, len(tokens)) // self.block_size if self.enable_prefix_caching else 0
        found: dict[int, list[int]] = {}
        for number, group in enumerate(self.demand.groups):
            if group.window is None:
                found[number] = self._run(number, table, tokens, end)
                end = len(found[number])
        if len(found) < self.num_groups:
            end = self._end_with_windows(table, tokens, end)
        return CachedPrefix(
            end, tuple(self._needed(n, found.get(n), end, table, tokens) for n in range(self.num_groups))
        )

    def cost(self, num_tokens: int, prefix: CachedPrefix) -> int:
        """Free blocks that an empty table would use up for this many tokens, the first of them cached."""
        num_blocks, computed = self.demand.blocks_for(num_tokens), prefix.num_blocks * self.block_size
        held = sum(group.end(num_blocks, computed) - group.first(computed) for group in self.demand.groups)
        return held - sum(self._references[block] > 0 for blocks in prefix.blocks for block in blocks)

    def start(self, table: BlockTable, num_tokens: int, prefix: CachedPrefix) -> bool:
        """Give an empty table what ``num_tokens`` tokens need; False, and nothing changes, if too few blocks are free.

        :param prefix: what :meth:`lookup` has just found for the table.
        """
        if self.cost(num_tokens, prefix) > len(self._free):
            return False
        for blocks in prefix.blocks:
            for block in blocks:
                if self._references[block] == 0:
                    del self._free[block]
                    self._num_held += 1
                self._references[block] += 1
        computed = prefix.num_blocks * self.block_size
        table.groups = tuple(
            GroupTable(group.first(computed), list(blocks))
            for group, blocks in zip(self.demand.groups, prefix.blocks, strict=True)
        )
        table.num_registered = prefix.num_blocks
        table.changed(room=0, moves_at=0)
        return self.grow(table, num_tokens, computed)

    def grow(self, table: BlockTable, num_tokens: int, num_computed_tokens: int) -> bool:
        """Let the windows of a table that was started move on, then give it what ``num_tokens`` tokens need.

        :returns: False, and only what left a window changes, if too few blocks are free.
        """
        if num_tokens <= table.room and num_computed_tokens < table.moves_at:
            return True
        num_blocks = self.demand.blocks_for(num_tokens)
        tables = list(zip(self.demand.groups, table.groups, strict=True))
        for group, held in tables:
            self._drop(held, group.first(num_computed_tokens), table.num_registered)
        missing = [max(0, group.end(num_blocks, num_computed_tokens) - held.end) for group, held in tables]
        enough = sum(missing) <= len(self._free)
        if enough:
            for count, (_, held) in zip(missing, tables, strict=True):
                held.blocks += [self._take() for _ in range(count)]
        table.changed(
            room=min(held.end for held in table.groups) * self.block_size,
            moves_at=min(group.moves_at(held.first) for group, held in tables),
        )
        return enough

    def register(self, table: BlockTable, tokens: Sequence[int], num_computed_tokens: int) -> None:
        """Offer the full blocks of the first ``num_computed_tokens`` tokens to other requests.

        To be called once the step that computed them has succeeded. A released table has nothing to offer.
        """
        end = num_computed_tokens // self.block_size
        if not self.enable_prefix_caching or end <= table.num_registered:
            return
        for number, held in enumerate(table.groups):
            while held.dropped and held.dropped[0].number < end:
                dropped = held.dropped.pop(0)
                if self._turns[dropped.block] == dropped.turn:
                    self._cache(number, dropped.block, table.digest(dropped.number, tokens, self.block_size))
            for index in range(max(held.first, table.num_registered), end):
                self._cache(number, held.blocks[index - held.first], table.digest(index, tokens, self.block_size))
        table.num_registered = end

    def release(self, table: BlockTable) -> None:
        """Take back every block of ``table``."""
        for index in reversed(range(max((held.end for held in table.groups), default=0))):
            for held in table.groups:
                if held.first <= index < held.end:
                    block = held.blocks[index - held.first]
                    self._let_go(block, worth_keeping=block in self._content_of)
        table.groups = ()
        table.changed(room=0, moves_at=0)

    def _run(self, group: int, table: BlockTable, tokens: Sequence[int], end: int) -> list[int]:
        """The cached blocks of a group from the first one on, up to ``end``."""
        found: list[int] = []
        for index in range(end):
            block = self._block_of[group].get(table.digest(index, tokens, self.block_size))
            if block is None:
                break
            found.append(block)
        return found

    def _end_with_windows(self, table: BlockTable, tokens: Sequence[int], end: int) -> int:
        """The last place, ``end`` or before, where all that windows reach is cached.

        A block that is missing rules out all ends whose windows reach it, so each block is looked at once.
        """
        known = zip(self.demand.groups, self._block_of, strict=True)
        windowed = [(group, blocks) for group, blocks in known if group.window is not None]
        firsts = [group.first(end * self.block_size) for group, _ in windowed]
        index = end - 1
        while index >= min(firsts):
            digest = table.digest(index, tokens, self.block_size)
            if any(digest not in blocks for (_, blocks), first in zip(windowed, firsts, strict=True) if index >= first):
                end = index
                firsts = [group.first(end * self.block_size) for group, _ in windowed]
            index -= 1
        return end

    def _needed(
        self, number: int, found: list[int] | None, end: int, table: BlockTable, tokens: Sequence[int]
    ) -> list[int]:
        """The blocks of a group that a request needs which starts after ``end`` cached ones."""
        if found is not None:
            return found[:end]
        known, first = self._block_of[number], self.demand.groups[number].first(end * self.block_size)
        return [known[table.digest(index, tokens, self.block_size)] for index in range(first, end)]

    def _cache(self, group: int, block: int, digest: bytes) -> None:
        # Requests that ran side by side have computed the same block twice: the first stays the cached one.
        if digest not in self._block_of[group]:
            self._block_of[group][digest] = block
            self._content_of[block] = (group, digest)

    def _drop(self, held: GroupTable, first: int, num_registered: int) -> None:
        """Let go what lies before block number ``first``; what is still to be registered is kept in mind."""
        for index in range(held.first, first):
            block = held.blocks[index - held.first]
            unread = self.enable_prefix_caching and index >= num_registered
            if unread:
                held.dropped.append(DroppedBlock(index, block, self._turns[block]))
            self._let_go(block, worth_keeping=unread or block in self._content_of)
        del held.blocks[: first - held.first]
        held.first = first

    def _let_go(self, block: int, *, worth_keeping: bool) -> None:
        self._references[block] -= 1
        if self._references[block] == 0:
            self._num_held -= 1
            self._free[block] = None
            if not worth_keeping:
                self._free.move_to_end(block, last=False)

    def _take(self) -> int:
        """The free block that is least worth keeping."""
        block, _ = self._free.popitem(last=False)
        content = self._content_of.pop(block, None)
        if content is not None:
            group, digest = content
            del self._block_of[group][digest]
        self._references[block] = 1
        self._turns[block] += 1
        self._num_held += 1
        return block
