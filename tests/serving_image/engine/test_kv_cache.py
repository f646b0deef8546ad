"""The block pool never loses, mixes up or invents a block, and finds cached tokens only where they are."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving_image.engine.kv_cache import BlockPool, BlockTable

BLOCK = 4


def _filled(pool: BlockPool, tokens: list[int], salt: str | None = None) -> BlockTable:
    """A table whose tokens were computed, from where the cache ended."""
    table = BlockTable(salt)
    assert pool.grow(table, len(tokens), pool.lookup(table, tokens, len(tokens) - 1))
    pool.register(table, tokens, len(tokens))
    return table


def _found(pool: BlockPool, tokens: list[int], salt: str | None = None) -> list[int]:
    return pool.lookup(BlockTable(salt), tokens, len(tokens))


def test_a_table_grows_block_by_block_until_none_is_left() -> None:
    pool = BlockPool(4, BLOCK)
    first, second = BlockTable(), BlockTable()
    assert pool.grow(first, 1)
    assert pool.grow(first, BLOCK)
    assert len(first.blocks) == 1
    assert pool.grow(second, 2 * BLOCK + 1)
    assert sorted(first.blocks + second.blocks) == [0, 1, 2, 3]
    assert not pool.grow(first, BLOCK + 1)
    assert len(first.blocks) == 1
    pool.release(second)
    assert (pool.num_free, pool.num_held) == (3, 1)
    assert pool.grow(first, 4 * BLOCK)


def test_equal_prefixes_share_full_blocks() -> None:
    pool = BlockPool(10, BLOCK)
    first = _filled(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    second = _filled(pool, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0])
    assert second.blocks[:2] == first.blocks[:2]
    assert second.blocks[2] != first.blocks[2]
    assert pool.num_free == 10 - 4
    assert _found(pool, [1, 2, 3, 4, 9, 9, 9, 9]) == first.blocks[:1]
    # The same tokens behind another beginning are another block.
    assert _found(pool, [9, 9, 9, 9, 5, 6, 7, 8]) == []


def test_salts_keep_tenants_apart() -> None:
    pool = BlockPool(10, BLOCK)
    tokens = [1, 2, 3, 4]
    tables = {salt: _filled(pool, tokens, salt) for salt in (None, "", "a", "b")}
    assert len({table.blocks[0] for table in tables.values()}) == 4
    for salt, table in tables.items():
        assert _found(pool, tokens, salt) == table.blocks
    assert _found(pool, tokens, "c") == []


def test_a_limit_leaves_the_last_block_to_be_computed() -> None:
    pool = BlockPool(10, BLOCK)
    tokens = list(range(3 * BLOCK))
    table = _filled(pool, tokens)
    assert pool.lookup(BlockTable(), tokens, len(tokens)) == table.blocks
    assert pool.lookup(BlockTable(), tokens, len(tokens) - 1) == table.blocks[:2]


def test_a_block_is_found_only_once_it_was_registered() -> None:
    pool = BlockPool(10, BLOCK)
    table, tokens = BlockTable(), list(range(2 * BLOCK))
    pool.grow(table, len(tokens))
    assert _found(pool, tokens) == []
    pool.register(table, tokens, BLOCK + BLOCK // 2)
    assert _found(pool, tokens) == table.blocks[:1]
    pool.register(table, tokens, 2 * BLOCK)
    assert _found(pool, tokens) == table.blocks


def test_freed_blocks_stay_until_the_oldest_must_go_and_a_chain_goes_from_its_end() -> None:
    pool = BlockPool(6, BLOCK)
    old, new = list(range(2 * BLOCK)), list(range(50, 50 + 3 * BLOCK))
    old_blocks = list((table := _filled(pool, old)).blocks)
    pool.release(table)
    new_blocks = list((table := _filled(pool, new)).blocks)
    pool.release(table)
    assert pool.num_free == 6
    assert (_found(pool, old), _found(pool, new)) == (old_blocks, new_blocks)
    for taken, old_left, new_left in [(1, 2, 3), (2, 1, 3), (3, 0, 3), (4, 0, 2), (5, 0, 1), (6, 0, 0)]:
        hog = BlockTable()
        assert pool.grow(hog, taken * BLOCK)
        assert _found(pool, old) == old_blocks[:old_left]
        assert _found(pool, new) == new_blocks[:new_left]
        pool.release(hog)


def test_being_used_again_makes_a_block_young() -> None:
    pool = BlockPool(2, BLOCK)
    first, second = [1] * BLOCK, [2] * BLOCK
    for tokens in (first, second, first):
        pool.release(_filled_again(pool, tokens))
    hog = BlockTable()
    pool.grow(hog, BLOCK)
    assert _found(pool, first)
    assert not _found(pool, second)


def _filled_again(pool: BlockPool, tokens: list[int]) -> BlockTable:
    table = BlockTable()
    assert pool.grow(table, len(tokens), pool.lookup(table, tokens, len(tokens)))
    pool.register(table, tokens, len(tokens))
    return table


def test_cached_blocks_that_nobody_holds_cost_what_empty_ones_do() -> None:
    pool = BlockPool(3, BLOCK)
    tokens = list(range(2 * BLOCK))
    holder = _filled(pool, tokens)
    found = _found(pool, tokens)
    assert pool.cost(3 * BLOCK, found) == 1
    pool.release(holder)
    assert pool.cost(3 * BLOCK, found) == 3
    hog, table = BlockTable(), BlockTable()
    pool.grow(hog, BLOCK)
    assert not pool.grow(table, 3 * BLOCK, found)
    assert (table.blocks, pool.num_free) == ([], 2)
    assert pool.grow(table, 2 * BLOCK, found)
    assert pool.num_free == 0


def test_a_preempted_table_starts_over_and_offers_its_new_blocks() -> None:
    pool = BlockPool(2, BLOCK)
    tokens = list(range(2 * BLOCK))
    table = _filled(pool, tokens)
    pool.release(table)
    hog = BlockTable()
    pool.grow(hog, 2 * BLOCK)
    pool.release(hog)
    assert _found(pool, tokens) == []
    assert pool.grow(table, len(tokens))
    pool.register(table, tokens, len(tokens))
    assert _found(pool, tokens) == table.blocks


def test_without_prefix_caching_nothing_is_found() -> None:
    pool = BlockPool(4, BLOCK, enable_prefix_caching=False)
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
        self.pool = BlockPool(9, BLOCK)
        self.tables: list[tuple[BlockTable, str | None, list[int]]] = []
        self.content: dict[int, tuple[str | None, tuple[int, ...]]] = {}
        """The salt and all tokens up to its end of the block that was last registered in that place."""

    @rule(salt=st.sampled_from([None, "s"]), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=20))
    def start(self, salt: str | None, tokens: list[int]) -> None:
        table = BlockTable(salt)
        found = self.pool.lookup(table, tokens, len(tokens) - 1)
        for index, block in enumerate(found):
            assert self.content[block] == (salt, tuple(tokens[: (index + 1) * BLOCK]))
        cost, free = self.pool.cost(len(tokens), found), self.pool.num_free
        assert self.pool.grow(table, len(tokens), found) == (cost <= free)
        if table.blocks:
            assert table.blocks[: len(found)] == found
            assert self.pool.num_free == free - cost
            self._overwritten(table.blocks[len(found) :])
            self.tables.append((table, salt, tokens))

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), more=st.lists(st.integers(0, 1), max_size=9))
    def extend(self, data: st.DataObject, more: list[int]) -> None:
        table, _, tokens = data.draw(st.sampled_from(self.tables))
        before, free = list(table.blocks), self.pool.num_free
        needed = -(-(len(tokens) + len(more)) // BLOCK) - len(before)
        assert self.pool.grow(table, len(tokens) + len(more)) == (needed <= free)
        if needed <= free:
            tokens += more
            self._overwritten(table.blocks[len(before) :])
        assert table.blocks[: len(before)] == before

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def register(self, data: st.DataObject) -> None:
        table, salt, tokens = data.draw(st.sampled_from(self.tables))
        computed = data.draw(st.integers(0, len(tokens)))
        first = table.num_registered
        self.pool.register(table, tokens, computed)
        for index in range(first, computed // BLOCK):
            self.content[table.blocks[index]] = (salt, tuple(tokens[: (index + 1) * BLOCK]))
        # Later, a twin of one of these blocks that was registered first may have been evicted, which breaks the chain.
        if first == 0:
            assert len(self.pool.lookup(BlockTable(salt), tokens, computed)) == computed // BLOCK

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
        holders = Counter(block for table, _, _ in self.tables for block in table.blocks)
        assert self.pool.num_held == len(holders)
        assert self.pool.num_free + self.pool.num_held == self.pool.num_blocks
        assert self.pool.num_cached <= len(self.content)
        for table, _, _ in self.tables:
            assert len(set(table.blocks)) == len(table.blocks)

    @invariant()
    def who_shares_a_block_shares_its_tokens(self) -> None:
        seen: dict[int, tuple[str | None, list[int]]] = {}
        for table, salt, tokens in self.tables:
            for index, block in enumerate(table.blocks):
                mine = (salt, tokens[: (index + 1) * BLOCK])
                assert seen.setdefault(block, mine) == mine

    def teardown(self) -> None:
        for table, _, _ in self.tables:
            self.pool.release(table)
        assert (self.pool.num_free, self.pool.num_held) == (self.pool.num_blocks, 0)


PoolMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
test_any_history = PoolMachine.TestCase
