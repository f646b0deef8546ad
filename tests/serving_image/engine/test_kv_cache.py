"""The block pool never loses, shares or invents a block, and keeps a request's blocks adjacent where it can."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import SlotRun
from serving_image.engine.kv_cache import BlockPool, BlockTable

BLOCK = 4


def test_a_request_grows_into_adjacent_blocks_beside_others() -> None:
    pool = BlockPool(num_blocks=12, block_size=BLOCK)
    first, second = BlockTable(), BlockTable()
    for tokens in range(1, 5 * BLOCK + 1):
        assert pool.grow(first, tokens, expected_tokens=5 * BLOCK)
        assert pool.grow(second, tokens, expected_tokens=5 * BLOCK)
    assert first.runs(18, BLOCK) == (SlotRun(0, 18),)
    assert second.runs(20, BLOCK) == (SlotRun(20, 20),)


def test_reserved_blocks_are_taken_before_anyone_goes_without() -> None:
    pool = BlockPool(num_blocks=4, block_size=BLOCK)
    greedy, late = BlockTable(), BlockTable()
    assert pool.grow(greedy, 1, expected_tokens=4 * BLOCK)
    assert pool.num_free == 3
    assert pool.grow(late, 3 * BLOCK, expected_tokens=3 * BLOCK)
    assert pool.num_free == 0
    assert not pool.grow(greedy, BLOCK + 1, expected_tokens=4 * BLOCK)
    assert greedy.blocks == [0]


def test_slots_follow_the_blocks() -> None:
    pool = BlockPool(num_blocks=3, block_size=BLOCK)
    hole, table, rest = BlockTable(), BlockTable(), BlockTable()
    pool.grow(hole, BLOCK, expected_tokens=BLOCK)
    pool.grow(rest, BLOCK, expected_tokens=BLOCK)
    pool.release(hole)
    pool.grow(table, 2 * BLOCK, expected_tokens=2 * BLOCK)
    assert sorted(table.blocks) == [0, 2]
    slots = table.slots(0, 7, BLOCK)
    assert slots == [table.blocks[p // BLOCK] * BLOCK + p % BLOCK for p in range(7)]
    assert [run.start + i for run in table.runs(7, BLOCK) for i in range(run.length)] == slots


@settings(deadline=None)
@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60), st.integers(0, 80)), max_size=60),
)
def test_blocks_are_conserved_under_any_history(num_blocks: int, history: list[tuple[int, int, int]]) -> None:
    """Each event grows one of six tables to a number of tokens, or releases it (0 tokens)."""
    pool = BlockPool(num_blocks, BLOCK)
    tables = [BlockTable() for _ in range(6)]
    for index, num_tokens, expected in history:
        table = tables[index]
        before = list(table.blocks)
        free_before = pool.num_free
        if num_tokens == 0:
            pool.release(table)
            assert table.blocks == []
        else:
            needed = max(0, -(-num_tokens // BLOCK) - len(before))
            grown = pool.grow(table, num_tokens, expected)
            assert grown == (needed <= free_before)
            assert table.blocks[: len(before)] == before
            assert len(table.blocks) == len(before) + (needed if grown else 0)
        held = [block for table in tables for block in table.blocks]
        assert len(held) == len(set(held))
        assert all(0 <= block < num_blocks for block in held)
        assert pool.num_free + len(held) == num_blocks
        covered = len(table.blocks) * BLOCK
        runs = table.runs(covered, BLOCK)
        assert [run.start + i for run in runs for i in range(run.length)] == table.slots(0, covered, BLOCK)
    for table in tables:
        pool.release(table)
    assert pool.num_free == num_blocks
    # Nothing stays reserved either: the whole cache can go to one request in one run.
    assert pool.grow(tables[0], num_blocks * BLOCK, num_blocks * BLOCK)
    assert len(tables[0].runs(num_blocks * BLOCK, BLOCK)) == 1
