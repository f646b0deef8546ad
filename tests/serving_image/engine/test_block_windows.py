"""Windowed layers keep the blocks that the next step reads, and no others; and where a request may start from cached
ones, none that a window needs is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving_image.engine.block_demand import BlockDemand
from serving_image.engine.block_pool import BlockPool
from serving_image.engine.block_table import BlockTable
from tests.serving_image.engine.scripted_runner import BLOCK, ScriptedEngine, Windows, ask, expected_tokens
from tests.serving_image.generation import run_to_end, tokens_by_request


def _computed(pool: BlockPool, tokens: Sequence[int], chunk: int) -> BlockTable:
    """A table whose tokens were computed in chunks, each read back one step late; released."""
    table = BlockTable()
    prefix = pool.lookup(table, tokens, len(tokens) - 1)
    assert pool.start(table, len(tokens), prefix)
    computed = prefix.num_blocks * BLOCK
    while computed < len(tokens):
        assert pool.grow(table, len(tokens), computed)
        pool.register(table, tokens, computed)
        computed += chunk
    pool.register(table, tokens, len(tokens))
    pool.release(table)
    return table


def _hit(pool: BlockPool, tokens: Sequence[int]) -> int:
    return pool.lookup(BlockTable(), tokens, len(tokens)).num_blocks


@given(
    block_size=st.integers(1, 9),
    window=st.one_of(st.none(), st.integers(1, 40)),
    step=st.integers(1, 30),
    num_tokens=st.integers(1, 120),
    data=st.data(),
)
def test_what_is_held_covers_the_window_and_the_step_within_the_bound(
    block_size: int, window: int | None, step: int, num_tokens: int, data: st.DataObject
) -> None:
    """Whatever chunks a prompt runs in, then token by token."""
    demand = BlockDemand(block_size, (window,), step)
    (group,) = demand.groups
    computed, most = 0, 0
    while computed < num_tokens + 20:
        total = max(num_tokens, computed + 1)
        stop = min(total, computed + data.draw(st.integers(1, step)))
        first, end = group.first(computed), group.end(demand.blocks_for(total), computed)
        needed = range(0 if window is None else max(0, computed - window + 1), stop)
        assert first * block_size <= needed.start
        assert (first + 1) * block_size > needed.start
        assert end * block_size >= stop
        assert window is None or end - first <= -(-(window - 1 + step) // block_size) + 1
        most = max(most, end - first)
        assert most <= demand.most(total)
        computed = stop


@given(
    windows=st.lists(st.one_of(st.none(), st.integers(1, 30)), min_size=1, max_size=4),
    step=st.integers(1, 40),
    num_blocks=st.integers(0, 40),
)
def test_the_longest_request_that_fits_is_the_longest(windows: list[int | None], step: int, num_blocks: int) -> None:
    demand = BlockDemand(BLOCK, tuple(windows), step)
    longest = demand.longest(num_blocks, limit=90)
    assert longest == max(num_tokens for num_tokens in range(91) if demand.most(num_tokens) <= num_blocks)


def test_a_long_prompt_gives_back_what_its_window_has_left() -> None:
    pool = BlockPool(100, BlockDemand(BLOCK, (None, 6), 8))
    table, tokens = BlockTable(), list(range(40))
    assert pool.start(table, 40, pool.lookup(table, tokens, 39))
    assert [len(group.blocks) for group in table.groups] == [10, 4]
    for computed in (8, 16, 24, 32, 39):
        assert pool.grow(table, 40, computed)
    assert [(group.first, len(group.blocks)) for group in table.groups] == [(0, 10), (8, 2)]
    assert pool.num_held == table.num_held == 12
    pool.release(table)
    assert pool.num_held == 0


def test_a_prefix_that_a_window_has_left_is_found_until_its_blocks_are_needed() -> None:
    """Also those blocks that were left before the step that filled them was read."""
    pool = BlockPool(50, BlockDemand(BLOCK, (None, 6), 12))
    tokens = list(range(40))
    _computed(pool, tokens, chunk=12)
    for length in range(0, 41, BLOCK):
        assert _hit(pool, [*tokens[:length], 99, 99, 99, 99]) == length // BLOCK


def test_a_hit_ends_where_the_window_before_it_is_cached() -> None:
    """Of 13 blocks a prompt takes ten in the full group and five at a time in the other; so most of these are gone."""
    pool = BlockPool(15, BlockDemand(BLOCK, (None, 6), 12))
    tokens = list(range(40))
    _computed(pool, tokens, chunk=12)
    assert _hit(pool, tokens) == 10
    found = pool.lookup(BlockTable(), [*tokens, 50], 40)
    assert [len(blocks) for blocks in found.blocks] == [10, 2]
    # The full group has all blocks of the first half, the other one none.
    assert _hit(pool, tokens[:12]) == 0


def test_without_full_groups_a_hit_needs_the_window_only() -> None:
    pool = BlockPool(6, BlockDemand(BLOCK, (6,), 4))
    tokens = list(range(100))
    _computed(pool, tokens, chunk=4)
    assert _hit(pool, tokens) == 25
    assert [len(blocks) for blocks in pool.lookup(BlockTable(), tokens, 100).blocks] == [2]
    assert _hit(pool, tokens[:8]) == 0
    assert _hit(pool, [99, *tokens[1:]]) == 0


def test_a_failed_step_offers_nothing_that_a_window_has_left() -> None:
    pool = BlockPool(50, BlockDemand(BLOCK, (6,), 12))
    table, tokens = BlockTable(), list(range(40))
    assert pool.start(table, 40, pool.lookup(table, tokens, 39))
    for computed in (12, 24, 36):
        assert pool.grow(table, 40, computed)
    pool.release(table)
    assert _hit(pool, tokens) == 0


def test_a_block_that_others_took_before_its_step_was_read_is_not_offered() -> None:
    pool = BlockPool(6, BlockDemand(BLOCK, (6,), 12))
    table, tokens = BlockTable(), list(range(24))
    assert pool.start(table, 24, pool.lookup(table, tokens, 23))
    assert pool.grow(table, 24, 12)
    other, others = BlockTable(), [7] * 4
    assert pool.start(other, 4, pool.lookup(other, others, 3))
    pool.register(table, tokens, 12)
    pool.release(table)
    pool.release(other)
    assert _hit(pool, tokens[:4]) == 0
    assert _hit(pool, tokens[:12]) == 3


@pytest.mark.parametrize("windows", [(5,), (None, 5), (None, 9, 9)])
@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_requests_much_longer_than_their_windows_share_a_small_pool(
    windows: Windows, enable_prefix_caching: bool
) -> None:
    """What a window has left serves others: so many tokens at once would not fit otherwise."""
    demand = BlockDemand(BLOCK, windows, 16)
    num_blocks = 4 * demand.most(109)
    assert num_blocks < 4 * len(windows) * demand.blocks_for(109)
    engine = ScriptedEngine(num_blocks=num_blocks, windows=windows, enable_prefix_caching=enable_prefix_caching)
    prompts = {str(index): [index, *range(30), *range(30), *range(29)][: 80 + index] for index in range(4)}
    for name, prompt in prompts.items():
        assert engine.core.add(ask(name, prompt, 20)) is None
    outputs, steps = run_to_end(engine.core)
    expected = {name: expected_tokens(prompt, 20, windows=windows) for name, prompt in prompts.items()}
    assert tokens_by_request(outputs) == expected
    assert max(step.stats.num_running for step in steps) == 4
    assert engine.core.stats().num_preemptions == 0
    engine.check_idle()


class WindowMachine(RuleBasedStateMachine):
    """Tables over two token ids, so that equal prefixes abound, in groups of several windows; steps are read late."""

    @initialize(windows=st.sampled_from([(3,), (None, 6), (None, 2, 9), (5, 1)]), spare=st.integers(0, 20))
    def begin(self, windows: Windows, spare: int) -> None:
        self.demand = BlockDemand(BLOCK, windows, 7)
        self.pool = BlockPool(self.demand.most(30) + spare, self.demand)
        self.tables: list[Live] = []
        self.content: dict[int, tuple[int, tuple[int, ...]]] = {}
        """The group and all tokens up to its end of the block that was last filled in that place."""

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=26))
    def start(self, tokens: list[int]) -> None:
        live = Live(BlockTable(), tokens)
        prefix = self.pool.lookup(live.table, tokens, len(tokens) - 1)
        computed = prefix.num_blocks * BLOCK
        for number, (group, blocks) in enumerate(zip(self.demand.groups, prefix.blocks, strict=True)):
            first = group.first(computed)
            assert len(blocks) == prefix.num_blocks - first, "a block that the window needs is missing"
            for index, block in enumerate(blocks, first):
                assert self.content[block] == (number, tuple(tokens[: (index + 1) * BLOCK]))
        cost, free = self.pool.cost(len(tokens), prefix), self.pool.num_free
        assert self.pool.start(live.table, len(tokens), prefix) == (cost <= free)
        if live.table.groups:
            assert self.pool.num_free == free - cost
            live.computed = live.read = computed
            self._overwritten(prefix.num_blocks, live.table)
            self.tables.append(live)

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), chunk=st.integers(1, 7))
    def step(self, data: st.DataObject, chunk: int) -> None:
        """Some of a table's tokens are computed, of which the last yields another one; the step before is read."""
        live = data.draw(st.sampled_from(self.tables))
        if live.computed == len(live.tokens):
            live.tokens.append(data.draw(st.integers(0, 1)))
        ends = [held.end for held in live.table.groups]
        if not self.pool.grow(live.table, len(live.tokens), live.computed):
            self._release(live)
            return
        self._overwritten(min(ends), live.table, ends)
        self.pool.register(live.table, live.tokens, live.computed)
        live.read = live.computed
        live.computed = min(len(live.tokens), live.computed + chunk)
        for number, held in enumerate(live.table.groups):
            for index in range(live.read // BLOCK, live.computed // BLOCK):
                block = held.blocks[index - held.first]
                self.content[block] = (number, tuple(live.tokens[: (index + 1) * BLOCK]))

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self._release(data.draw(st.sampled_from(self.tables)))

    def _release(self, live: Live) -> None:
        self.tables.remove(live)
        self.pool.release(live.table)

    def _overwritten(self, first: int, table: BlockTable, ends: Sequence[int] | None = None) -> None:
        for held, end in zip(table.groups, ends or [first] * len(table.groups), strict=True):
            for block in held.blocks[max(0, end - held.first) :]:
                self.content.pop(block, None)

    @invariant()
    def every_block_is_accounted_for(self) -> None:
        holders = Counter(block for live in self.tables for held in live.table.groups for block in held.blocks)
        assert self.pool.num_held == len(holders)
        assert self.pool.num_free + self.pool.num_held == self.pool.num_blocks

    @invariant()
    def who_shares_a_block_shares_its_group_and_tokens(self) -> None:
        seen: dict[int, tuple[int, list[int]]] = {}
        for live in self.tables:
            for number, held in enumerate(live.table.groups):
                for index, block in enumerate(held.blocks, held.first):
                    mine = (number, live.tokens[: (index + 1) * BLOCK])
                    assert seen.setdefault(block, mine) == mine

    @invariant()
    def the_bound_holds(self) -> None:
        for live in self.tables:
            for group, held in zip(self.demand.groups, live.table.groups, strict=True):
                assert group.most is None or len(held.blocks) <= group.most

    def teardown(self) -> None:
        for live in self.tables:
            self.pool.release(live.table)
        assert (self.pool.num_free, self.pool.num_held) == (self.pool.num_blocks, 0)


class Live:
    """A table that holds blocks, its tokens, and how many of these steps have computed and were read."""

    def __init__(self, table: BlockTable, tokens: list[int]) -> None:
        self.table = table
        self.tokens = list(tokens)
        self.computed = self.read = 0


WindowMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
test_any_history = WindowMachine.TestCase
