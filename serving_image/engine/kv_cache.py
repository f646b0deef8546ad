"""Who owns which block of the key/value cache, and what freed blocks still hold."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b


class BlockTable:
    """The blocks of one request, in the order of its tokens.

    ``num_registered`` of them, the first ones, have been offered to other requests. The digests of its full blocks
    depend on its tokens alone, so they are computed once and outlive a preemption.
    """

    __slots__ = ("_cache_salt", "_chain", "blocks", "num_registered")

    def __init__(self, cache_salt: str | None = None) -> None:
        self.blocks: list[int] = []
        self.num_registered = 0
        self._cache_salt = cache_salt
        self._chain: list[bytes] = []

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


class BlockPool:
    """All blocks of the cache. A full block whose tokens were computed can be shared, even after it was freed.

    ::

                     grow                     register
        free, empty ─────► held, 1 reference ──────────► held and cached, 1 or more references ◄─┐
           ▲  ▲               │                                       │ release                  │ grow, with what
           │  └── release ────┘                                       ▼                          │ lookup found
           └──────────────── taken for other tokens ◄─────── free, still cached ─────────────────┘

    Blocks are taken from the front of one queue. Empty ones go there when freed; cached ones to the back, a request's
    last block first, because the first blocks of a chain are the likeliest to be asked for again and useless without
    them are the rest. Every operation on a block is O(1). Invariant: ``num_free + num_held == num_blocks``; cached
    blocks without a reference count as free.
    """

    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self._references = [0] * num_blocks
        self._num_held = 0
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._block_of: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}

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
        return len(self._block_of)

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that this many tokens need."""
        return -(-num_tokens // self.block_size)

    def lookup(self, table: BlockTable, tokens: Sequence[int], limit: int) -> list[int]:
        """The cached blocks that hold the first of ``tokens``, ``limit`` at most, under the table's salt."""
        found: list[int] = []
        if self.enable_prefix_caching:
            for index in range(min(limit, len(tokens)) // self.block_size):
                block = self._block_of.get(table.digest(index, tokens, self.block_size))
                if block is None:
                    break
                found.append(block)
        return found

    def cost(self, num_tokens: int, cached: Sequence[int]) -> int:
        """Free blocks that an empty table would use up for this many tokens, the first of them in ``cached``."""
        return self.blocks_for(num_tokens) - sum(self._references[block] > 0 for block in cached)

    def grow(self, table: BlockTable, num_tokens: int, cached: Sequence[int] = ()) -> bool:
        """Give ``table`` the blocks that ``num_tokens`` tokens need; False, and nothing changes, if too few are free.

        :param cached: what :meth:`lookup` has just found for the table, which must be empty then.
        """
        needed = self.blocks_for(num_tokens) - len(table.blocks)
        if needed <= 0:
            return True
        if (self.cost(num_tokens, cached) if cached else needed) > len(self._free):
            return False
        for block in cached:
            if self._references[block] == 0:
                del self._free[block]
                self._num_held += 1
            self._references[block] += 1
        table.blocks += cached
        table.num_registered += len(cached)
        for _ in range(needed - len(cached)):
            table.blocks.append(self._take())
        return True

    def register(self, table: BlockTable, tokens: Sequence[int], num_computed_tokens: int) -> None:
        """Offer the full blocks of the first ``num_computed_tokens`` tokens to other requests.

        To be called once the step that computed them has succeeded. A released table has nothing to offer.
        """
        if not self.enable_prefix_caching:
            return
        full = min(num_computed_tokens // self.block_size, len(table.blocks))
        for index in range(table.num_registered, full):
            digest = table.digest(index, tokens, self.block_size)
            # Requests that ran side by side have computed the same block twice: the first stays the cached one.
            if digest not in self._block_of:
                self._block_of[digest] = table.blocks[index]
                self._digest_of[table.blocks[index]] = digest
            table.num_registered = index + 1

    def release(self, table: BlockTable) -> None:
        """Take back every block of ``table``."""
        for block in reversed(table.blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._num_held -= 1
                self._free[block] = None
                if block not in self._digest_of:
                    self._free.move_to_end(block, last=False)
        table.blocks.clear()
        table.num_registered = 0

    def _take(self) -> int:
        """The free block that is least worth keeping."""
        block, _ = self._free.popitem(last=False)
        digest = self._digest_of.pop(block, None)
        if digest is not None:
            del self._block_of[digest]
        self._references[block] = 1
        self._num_held += 1
        return block
