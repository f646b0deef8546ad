"""Batch inputs made on the device: the Triton form against the reference, and the reference against one drawn example.

Rows that no item uses are poisoned, and so is what a batch does not use of its memory.
"""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.batch_inputs import BatchInputs, Item, ItemBlocks, RequestTables, StepSize, reference, write_inputs
from kernels.gpu import Device, standing_in

CPU = torch.device("cpu")
POISON = 2**30


def tables(rows: int, max_model_len: int, max_blocks: int, groups: int = 1) -> RequestTables:
    return RequestTables(
        torch.full((rows, max_model_len), POISON, dtype=torch.int32),
        torch.full((rows,), POISON, dtype=torch.int32),
        torch.full((groups, rows, max_blocks), POISON, dtype=torch.int32),
    )


def inputs(items: int, tokens: int, max_blocks: int, groups: int = 1) -> BatchInputs:
    def poisoned(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.full(shape, POISON, dtype=dtype)

    return BatchInputs(
        token_ids=poisoned(tokens, dtype=torch.int64),
        positions=poisoned(tokens, dtype=torch.int64),
        sequence_lengths=poisoned(tokens, dtype=torch.int64),
        slots=poisoned(groups, tokens, dtype=torch.int64),
        query_starts=poisoned(items + 1),
        context_lengths=poisoned(items),
        block_tables=poisoned(groups, items, max_blocks),
        sampled_rows=poisoned(items),
        sampled_positions=poisoned(items),
        last_tokens=poisoned(items, dtype=torch.int64),
        split_tokens=poisoned(1),
    )


Words = list[tuple[Item, list[ItemBlocks]]]


def words(split_tokens: int, items: Words, new_blocks: list[int]) -> torch.Tensor:
    flat = [word for item, blocks in items for part in (item, *blocks) for word in part]
    return torch.tensor([split_tokens, *flat, *new_blocks], dtype=torch.int32)


def test_one_example() -> None:
    """A decode whose token begins a block, a chunk of a prompt that ends within it, and a row of padding; in a full
    group and one whose window has left the decode's first block."""
    held = tables(rows=4, max_model_len=16, max_blocks=4, groups=2)
    held.tokens[2, :9] = torch.arange(10, 19)
    held.tokens[0, :6] = torch.arange(50, 56)
    held.prompt_lengths[:] = torch.tensor([6, 0, 5, 0])
    held.blocks[0, 2, :2] = torch.tensor([7, 3])
    held.blocks[1, 2, 1] = 2
    batch = inputs(items=4, tokens=8, max_blocks=4, groups=2)
    items = [
        (Item(2, 8, 1, 0, 1), [ItemBlocks(0, 2, 0), ItemBlocks(1, 2, 1)]),
        (Item(0, 2, 3, 1, 0), [ItemBlocks(0, 0, 2), ItemBlocks(0, 0, 4)]),
    ]
    reference.write_inputs(words(64, items, [9, 4, 1, 5, 6, 8]), StepSize(2, 1, 3), 4, held, batch)
    assert batch.token_ids[:5].tolist() == [18, 52, 53, 54, 0]
    assert batch.positions[:5].tolist() == [8, 2, 3, 4, 0]
    assert batch.sequence_lengths[:4].tolist() == [9, 6, 6, 6]
    assert batch.slots[:, :5].tolist() == [[36, 6, 7, 20, -1], [16, 26, 27, 32, -1]]
    assert batch.query_starts[:4].tolist() == [0, 1, 4, 5]
    assert batch.context_lengths[:3].tolist() == [9, 5, 0]
    assert batch.block_tables[0, 0, :3].tolist() == held.blocks[0, 2, :3].tolist() == [7, 3, 9]
    assert batch.block_tables[0, 1, :2].tolist() == held.blocks[0, 0, :2].tolist() == [1, 5]
    assert batch.block_tables[1, 0, :3].tolist() == held.blocks[1, 2, :3].tolist() == [POISON, 2, 4]
    assert batch.block_tables[1, 1, :2].tolist() == held.blocks[1, 0, :2].tolist() == [6, 8]
    assert batch.sampled_rows[:3].tolist() == [2, -1, -1]
    assert batch.sampled_positions[:2].tolist() == [9, 5]
    assert batch.last_tokens[:3].tolist() == [0, 3, 4]
    assert batch.split_tokens.tolist() == [64]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    num_items=st.integers(1, 5),
    padding=st.sampled_from([0, 0, 1, 3]),
    block_size=st.sampled_from([1, 4, 16, 32]),
    longest=st.sampled_from([1, 7, 40, 300]),
    groups=st.sampled_from([1, 1, 2, 3]),
)
def test_the_triton_form_equals_the_reference(
    seed: int, num_items: int, padding: int, block_size: int, longest: int, groups: int
) -> None:
    choose = random.Random(seed)  # noqa: S311 (not for security)
    max_model_len = 2 * longest + 8
    max_blocks = -(-max_model_len // block_size)
    held = tables(num_items + 2, max_model_len, max_blocks, groups)
    items: Words = []
    new_blocks: list[int] = []
    query_start = extent = 0
    for row in choose.sample(range(num_items + 2), num_items):
        num_tokens = 1 if padding else choose.randint(1, longest)
        start = choose.randint(0, max_model_len - num_tokens)
        blocks = -(-(start + num_tokens) // block_size)
        held.tokens[row, : start + num_tokens] = torch.tensor(choose.choices(range(-1, 1000), k=start + num_tokens))
        held.prompt_lengths[row] = choose.randint(1, max_model_len)
        spans = []
        for group in range(groups):
            first = choose.choice([0, choose.randint(0, start // block_size)])
            first_new = choose.choice([first, blocks, max(first, blocks - 1), choose.randint(first, blocks)])
            known = choose.choices(range(10**6), k=first_new - first)
            held.blocks[group, row, first:first_new] = torch.tensor(known)
            spans.append(ItemBlocks(first, first_new, len(new_blocks)))
            new_blocks += choose.choices(range(10**6), k=blocks - first_new)
        items.append((Item(row, start, num_tokens, query_start, choose.randint(0, 1)), spans))
        query_start += num_tokens
        extent = max(extent, num_tokens, blocks)
    step = words(choose.randint(1, 10**6), items, new_blocks)
    room = (num_items + padding + 1, query_start + padding + 3, max_blocks, groups)
    expected, found = inputs(*room), inputs(*room)
    expected_tables, found_tables = RequestTables(*(part.clone() for part in held)), held
    size = StepSize(num_items, padding, extent)
    reference.write_inputs(step, size, block_size, expected_tables, expected)
    found, found_tables = _on_the_device(found, found_tables)
    with standing_in(Device(90, 132)):
        write_inputs(step.to(found.token_ids.device), size, block_size, found_tables, found)
    for name in BatchInputs._fields:
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name
    for name in RequestTables._fields:
        assert torch.equal(getattr(found_tables, name).cpu(), getattr(expected_tables, name)), name


def test_a_batch_without_room_is_refused() -> None:
    step = words(1, [(Item(0, 0, 1, 0, 0), [ItemBlocks(0, 1, 0)])], [])
    with pytest.raises(ValueError, match="2 rows in memory for 1"):
        write_inputs(step, StepSize(1, 1, 1), 4, tables(1, 4, 1), inputs(1, 4, 1))


def _on_the_device(batch: BatchInputs, held: RequestTables) -> tuple[BatchInputs, RequestTables]:
    device = torch.device("cuda") if torch.cuda.is_available() else CPU
    return BatchInputs(*(part.to(device) for part in batch)), RequestTables(*(part.to(device) for part in held))
