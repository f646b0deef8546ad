"""The block pool never loses, mixes up or invents a block, and finds cached tokens only where they are."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving_image.engine.block_demand import BlockDemand
from serving_image.engine.block_pool import BlockPool, CachedPrefix
from serving_image.engine.block_table import BlockTable

BLOCK = 4
DEMAND = BlockDemand(BLOCK)
NOTHING = CachedPrefix(0, ([],))


def _filled(pool: BlockPool, tokens: list[int], salt: str | None = None) -> BlockTable:
    """A table whose tokens were computed, from where the cache ended."""
    table = BlockTable(salt)
    assert pool.start(table, len(tokens), pool.lookup(table, tokens, len(tokens) - 1))
    pool.register(table, tokens, len(tokens))
    return table


def _grow(pool: BlockPool, table: BlockTable, num_tokens: int) -> bool:
    return pool.grow(table, num_tokens, 0) if table.groups else pool.start(table, num_tokens, NOTHING)


def _blocks(table: BlockTable) -> list[int]:
    return [block for held in table.groups for block in held.blocks]


def _found(pool: BlockPool, tokens: list[int], salt: str | None = None) -> list[int]:
    (blocks,) = pool.lookup(BlockTable(salt), tokens, len(tokens)).blocks
    return blocks


def test_a_table_grows_block_by_block_until_none_is_left() -> None:
    pool = BlockPool(4, DEMAND)
    first, second = BlockTable(), BlockTable()
    assert _grow(pool, first, 1)
    assert _grow(pool, first, BLOCK)
    assert len(_blocks(first)) == 1
    assert _grow(pool, second, 2 * BLOCK + 1)
    assert sorted(_blocks(first) + _blocks(second)) == [0, 1, 2, 3]
    assert not _grow(pool, first, BLOCK + 1)
    assert len(_blocks(first)) == 1
    pool.release(second)
    assert (pool.num_free, pool.num_held) == (3, 1)
    assert _grow(pool, first, 4 * BLOCK)


def test_equal_prefixes_share_full_blocks() -> None:
    pool = BlockPool(10, DEMAND)
    first = _filled(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    second = _filled(pool, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0])
    assert _blocks(second)[:2] == _blocks(first)[:2]
    assert _blocks(second)[2] != _blocks(first)[2]
    assert pool.num_free == 10 - 4
    assert _found(pool, [1, 2, 3, 4, 9, 9, 9, 9]) == _blocks(first)[:1]
    # The same tokens behind another beginning are another block.
    assert _found(pool, [9, 9, 9, 9, 5, 6, 7, 8]) == []


def test_salts_keep_tenants_apart() -> None:
    pool = BlockPool(10, DEMAND)
    tokens = [1, 2, 3, 4]
    tables = {salt: _filled(pool, tokens, salt) for salt in (None, "", "a", "b")}
    assert len({_blocks(table)[0] for table in tables.values()}) == 4
    for salt, table in tables.items():
        assert _found(pool, tokens, salt) == _blocks(table)
    assert _found(pool, tokens, "c") == []


def test_a_limit_leaves_the_last_block_to_be_computed() -> None:
    pool = BlockPool(10, DEMAND)
    tokens = list(range(3 * BLOCK))
    table = _filled(pool, tokens)
    assert _found(pool, tokens) == _blocks(table)
    assert pool.lookup(BlockTable(), tokens, len(tokens) - 1) == (2, (_blocks(table)[:2],))


def test_a_block_is_found_only_once_it_was_registered() -> None:
    pool = BlockPool(10, DEMAND)
    table, tokens = BlockTable(), list(range(2 * BLOCK))
    _grow(pool, table, len(tokens))
    assert _found(pool, tokens) == []
    pool.register(table, tokens, BLOCK + BLOCK // 2)
    assert _found(pool, tokens) == _blocks(table)[:1]
    pool.register(table, tokens, 2 * BLOCK)
    assert _found(pool, tokens) == _blocks(table)


def test_freed_blocks_stay_until_the_oldest_must_go_and_a_chain_goes_from_its_end() -> None:
    pool = BlockPool(6, DEMAND)
    old, new = list(range(2 * BLOCK)), list(range(50, 50 + 3 * BLOCK))
    old_blocks = _blocks(table := _filled(pool, old))
    pool.release(table)
    new_blocks = _blocks(table := _filled(pool, new))
    pool.release(table)
    assert pool.num_free == 6
    assert (_found(pool, old), _found(pool, new)) == (old_blocks, new_blocks)
    for taken, old_left, new_left in [(1, 2, 3), (2, 1, 3), (3, 0, 3), (4, 0, 2), (5, 0, 1), (6, 0, 0)]:
        hog = BlockTable()
        assert _grow(pool, hog, taken * BLOCK)
        assert _found(pool, old) == old_blocks[:old_left]
        assert _found(pool, new) == new_blocks[:new_left]
        pool.release(hog)


def test_being_used_again_makes_a_block_young() -> None:
    pool = BlockPool(2, DEMAND)
    first, second = [1] * BLOCK, [2] * BLOCK
    for tokens in (first, second, first):
        pool.release(_filled_again(pool, tokens))
    hog = BlockTable()
    _grow(pool, hog, BLOCK)
    assert _found(pool, first)
    assert not _found(pool, second)


def _filled_again(pool: BlockPool, tokens: list[int]) -> BlockTable:
    table = BlockTable()
    assert pool.start(table, len(tokens), pool.lookup(table, tokens, len(tokens)))
    pool.register(table, tokens, len(tokens))
    return table


def test_cached_blocks_that_nobody_holds_cost_what_empty_ones_do() -> None:
    pool = BlockPool(3, DEMAND)
    tokens = list(range(2 * BLOCK))
    holder = _filled(pool, tokens)
    found = pool.lookup(BlockTable(), tokens, len(tokens))
    assert pool.cost(3 * BLOCK, found) == 1
    pool.release(holder)
    assert pool.cost(3 * BLOCK, found) == 3
    hog, table = BlockTable(), BlockTable()
    _grow(pool, hog, BLOCK)
    assert not pool.start(table, 3 * BLOCK, found)
    assert (_blocks(table), pool.num_free) == ([], 2)
    assert pool.start(table, 2 * BLOCK, found)
    assert pool.num_free == 0


def test_a_preempted_table_starts_over_and_offers_its_new_blocks() -> None:
    pool = BlockPool(2, DEMAND)
    tokens = list(range(2 * BLOCK))
    table = _filled(pool, tokens)
    pool.release(table)
    hog = BlockTable()
    _grow(pool, hog, 2 * BLOCK)
    pool.release(hog)
    assert _found(pool, tokens) == []
    assert _grow(pool, table, len(tokens))
    pool.register(table, tokens, len(tokens))
    assert _found(pool, tokens) == _blocks(table)


def test_without_prefix_caching_nothing_is_found() -> None:
    pool = BlockPool(4, DEMAND, enable_prefix_caching=False)
    tokens = list(range(2 * BLOCK))
    table = _filled(pool, tokens)
    assert _found(pool, tokens) == []
    assert pool.num_cached == 0
    pool.release(table)
    assert pool.num_free == 4


class PoolMachine(RuleBasedStateMachine):
    """Tables over two token ids and two salts, so that equal prefixes abound, against a model of what blocks hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(9, DEMAND)
        self.tables: list[tuple[BlockTable, str | None, list[int]]] = []
        self.content: dict[int, tuple[str | None, tuple[int, ...]]] = {}
        """The salt and all tokens up to its end of the block that was last registered in that place."""

    @rule(salt=st.sampled_from([None, "s"]), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=20))
    def start(self, salt: str | None, tokens: list[int]) -> None:
        table = BlockTable(salt)
        prefix = self.pool.lookup(table, tokens, len(tokens) - 1)
        (found,) = prefix.blocks
        for index, block in enumerate(found):
            assert self.content[block] == (salt, tuple(tokens[: (index + 1) * BLOCK]))
        cost, free = self.pool.cost(len(tokens), prefix), self.pool.num_free
        assert self.pool.start(table, len(tokens), prefix) == (cost <= free)
        if table.groups:
            assert _blocks(table)[: len(found)] == found
            assert self.pool.num_free == free - cost
            self._overwritten(_blocks(table)[len(found) :])
            self.tables.append((table, salt, tokens))

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), more=st.lists(st.integers(0, 1), max_size=9))
    def extend(self, data: st.DataObject, more: list[int]) -> None:
        table, _, tokens = data.draw(st.sampled_from(self.tables))
        before, free = list(_blocks(table)), self.pool.num_free
        needed = -(-(len(tokens) + len(more)) // BLOCK) - len(before)
        assert self.pool.grow(table, len(tokens) + len(more), 0) == (needed <= free)
        if needed <= free:
            tokens += more
            self._overwritten(_blocks(table)[len(before) :])
        assert _blocks(table)[: len(before)] == before

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def register(self, data: st.DataObject) -> None:
        table, salt, tokens = data.draw(st.sampled_from(self.tables))
        computed = data.draw(st.integers(0, len(tokens)))
        first = table.num_registered
        self.pool.register(table, tokens, computed)
        for index in range(first, computed // BLOCK):
            self.content[_blocks(table)[index]] = (salt, tuple(tokens[: (index + 1) * BLOCK]))
        # Later, a twin of one of these blocks that was registered first may have been evicted, which breaks the chain.
        if first == 0:
            assert self.pool.lookup(BlockTable(salt), tokens, computed).num_blocks == computed // BLOCK

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.tables) - 1))
        self.pool.release(self.tables.pop(index)[0])

    def _overwritten(self, blocks: list[int]) -> None:
        for block in blocks:
            self.content.pop(block, None)

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        holders = Counter(block for table, _, _ in self.tables for block in _blocks(table))
        assert self.pool.num_held == len(holders)
        assert self.pool.num_free + self.pool.num_held == self.pool.num_blocks
        assert self.pool.num_cached <= len(self.content)
        for table, _, _ in self.tables:
            assert len(set(_blocks(table))) == len(_blocks(table))

    @invariant()
    def who_shares_a_block_shares_its_tokens(self) -> None:
        seen: dict[int, tuple[str | None, list[int]]] = {}
        for table, salt, tokens in self.tables:
            for index, block in enumerate(_blocks(table)):
                mine = (salt, tokens[: (index + 1) * BLOCK])
                assert seen.setdefault(block, mine) == mine

    def teardown(self) -> None:
        for table, _, _ in self.tables:
            self.pool.release(table)
        assert (self.pool.num_free, self.pool.num_held) == (self.pool.num_blocks, 0)


PoolMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
test_any_history = PoolMachine.TestCase
