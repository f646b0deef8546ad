"""Who owns which block of the key/value cache."""

from __future__ import annotations

from kernels.attention import SlotRun

_HELD, _FREE, _RESERVED = 0, 1, 2


class BlockTable:
    """The blocks of one request, in the order of its tokens."""

    __slots__ = ("_runs", "blocks", "reserved")

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.reserved = range(0)
        """Free blocks meant for this table's growth; others take them only when nothing else is left."""
        self._runs: list[SlotRun] = []  # counted in blocks

    def append(self, block: int) -> None:
        """Add the block of the next tokens, joining it to the last run if it is adjacent."""
        self.blocks.append(block)
        if self._runs and sum(self._runs[-1]) == block:
            self._runs[-1] = SlotRun(self._runs[-1].start, self._runs[-1].length + 1)
        else:
            self._runs.append(SlotRun(block, 1))

    def clear(self) -> None:
        """Forget every block and the reservation."""
        self.blocks.clear()
        self._runs.clear()
        self.reserved = range(0)

    def slots(self, start: int, stop: int, block_size: int) -> list[int]:
        """The cache slots of the tokens at positions ``start … stop - 1``."""
        blocks = self.blocks
        return [blocks[p // block_size] * block_size + p % block_size for p in range(start, stop)]

    def runs(self, num_tokens: int, block_size: int) -> tuple[SlotRun, ...]:
        """The slots of the first ``num_tokens`` tokens as runs of adjacent ones."""
        runs: list[SlotRun] = []
        for start, blocks in self._runs:
            if num_tokens <= 0:
                break
            length = min(num_tokens, blocks * block_size)
            runs.append(SlotRun(start * block_size, length))
            num_tokens -= length
        return tuple(runs)


class BlockPool:
    """All blocks of the cache, handed out so that a request's blocks are adjacent where possible.

    A CPU attends to adjacent blocks without copying them. A request that starts is given a run of free blocks as long
    as it may become: it holds the part it needs now and has the rest reserved::

        ▓ held   ░ reserved   · free

        ▓▓▓▓░░▓░░░░▓▓▓···········
        └ A ─┘└─ B ┘ C

    A reservation is a preference, not a right: when no unreserved block is left, anyone takes reserved ones, so
    no request ever waits for a block that nobody uses. Invariant: ``num_free + blocks held by tables == num_blocks``.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._state = bytearray([_FREE]) * num_blocks
        self._num_free = num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds."""
        return self._num_free

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that this many tokens need."""
        return -(-num_tokens // self.block_size)

    def grow(self, table: BlockTable, num_tokens: int, expected_tokens: int) -> bool:
        """Give ``table`` the blocks that ``num_tokens`` tokens need; False, and nothing changes, if too few are free.

        :param expected_tokens: how long the request may become; where a new table is placed depends on it.
        """
        needed = self.blocks_for(num_tokens) - len(table.blocks)
        if needed <= 0:
            return True
        if needed > self._num_free:
            return False
        if not table.blocks:
            self._reserve(table, self.blocks_for(max(num_tokens, expected_tokens)), needed)
        for _ in range(needed):
            table.append(self._take(table))
        return True

    def release(self, table: BlockTable) -> None:
        """Take back every block of ``table`` and its reservation."""
        for block in table.blocks:
            self._state[block] = _FREE
        self._num_free += len(table.blocks)
        for block in table.reserved:
            if self._state[block] == _RESERVED:
                self._state[block] = _FREE
        table.clear()

    def _reserve(self, table: BlockTable, expected: int, needed: int) -> None:
        """Place a new table in the first free run of the expected length, or of the length needed now."""
        for length in (expected, needed):
            start = self._state.find(bytes([_FREE]) * length)
            if start >= 0:
                table.reserved = range(start, start + length)
                self._state[start : start + length] = bytes([_RESERVED]) * length
                return

    def _take(self, table: BlockTable) -> int:
        """The best free block for the table's next tokens: the adjacent one, else any unreserved, else any."""
        following = table.blocks[-1] + 1 if table.blocks else table.reserved.start
        if (table.blocks or table.reserved) and following < self.num_blocks and self._state[following] != _HELD:
            block = following
        else:
            block = self._state.find(_FREE)
            if block < 0:
                block = self._state.find(_RESERVED)
        self._state[block] = _HELD
        self._num_free -= 1
        return block
