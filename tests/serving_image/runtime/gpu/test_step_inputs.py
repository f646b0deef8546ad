"""What the device makes of a step is what the host would have made of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import PagedBatch
from kernels.attention.launch import LaunchPlan
from kernels.gpu import Device, standing_in
from serving_image.engine.block_demand import BlockDemand
from serving_image.engine.block_table import BlockSpan, GroupTable
from serving_image.engine.request import Request
from serving_image.engine.step import ScheduledRequest
from serving_image.runtime.batch import model_input
from serving_image.runtime.gpu.request_rows import RequestRows
from serving_image.runtime.gpu.step_inputs import StepInputs
from tests.serving_image.checkpoints import random_prompt
from tests.serving_image.engine.scripted_runner import make_request

BLOCK, MAX_LENGTH = 4, 40
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Steps:
    """A few requests whose tokens are all known, the rows that the device has of them, and their next chunks; in a full
    group of layers and two windowed ones."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)  # noqa: S311 (not for security)
        self.demand = BlockDemand(BLOCK, (None, 3, 9), MAX_LENGTH)
        self.rows = RequestRows(3, MAX_LENGTH, MAX_LENGTH // BLOCK, 256, DEVICE, len(self.demand.groups))
        self.inputs = StepInputs(self.rows.tables, max_items=4, max_tokens=3 * MAX_LENGTH, block_size=BLOCK)
        self.requests = [self._request(index) for index in range(3)]

    def _request(self, index: int) -> Request:
        request = make_request(str(index), random_prompt(MAX_LENGTH, seed=index), 1)
        request.num_prompt_tokens = self.choose.randint(1, MAX_LENGTH)
        return request

    def next_items(self) -> list[ScheduledRequest]:
        """Chunks of some requests, those of one token first; now and then one was preempted before."""
        items = []
        for request in self.choose.sample(self.requests, self.choose.randint(1, 3)):
            if self.choose.random() < 0.2:
                request.blocks.groups = ()
                request.num_computed_tokens = 0
            start = request.num_computed_tokens = min(request.num_computed_tokens, MAX_LENGTH - 1)
            num_tokens = self.choose.choice([1, 1, self.choose.randint(1, MAX_LENGTH - start)])
            request.num_computed_tokens = stop = min(start + num_tokens, MAX_LENGTH)
            blocks = self._blocks(request, start, stop)
            items.append(ScheduledRequest(request, start, stop - start, blocks, self.choose.random() < 0.5))
        return sorted(items, key=lambda item: item.num_tokens > 1)

    def _blocks(self, request: Request, start: int, stop: int) -> tuple[BlockSpan, ...]:
        """Let the windows move on and give the tables any blocks for what is new."""
        if not request.blocks.groups:
            request.blocks.groups = tuple(GroupTable(0, []) for _ in self.demand.groups)
        for group, held in zip(self.demand.groups, request.blocks.groups, strict=True):
            while held.end < -(-stop // BLOCK):
                held.blocks.append(self.choose.randrange(1000))
            del held.blocks[: group.first(start) - held.first]
            held.first = group.first(start)
        request.blocks.changed(0, 0)
        return request.blocks.spans(-(-stop // BLOCK))


@settings(deadline=None, max_examples=8, derandomize=True)
@given(st.integers(0, 2**31))
def test_steps_become_the_batches_that_the_host_makes_of_them(seed: int) -> None:
    """Over several steps, in which the device remembers what it was told."""
    with standing_in(Device(90, 2)):
        steps = Steps(seed)
        for number in range(4):
            items = steps.next_items()
            padding = steps.choose.randint(0, 1) if items[-1].num_tokens == 1 else 0
            rows = steps.rows.admit([item.request for item in items])
            steps.inputs.write(items, rows, padding, split_tokens=64 + number)
            tokens = sum(item.num_tokens for item in items)
            plan = LaunchPlan(0, 0, 1, 0)
            found = steps.inputs.batch(len(items), tokens, plan)
            expected = model_input(items, BLOCK, torch.device("cpu"))
            for name in ("token_ids", "positions", "sequence_lengths"):
                assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name
            assert_same_pagings(found.pagings, expected.pagings, items)
            assert {paging.launch.split_tokens.item() for paging in found.pagings if paging.launch} == {64 + number}
            sampled = steps.inputs.sampled(len(items) + padding)
            filling = [-1] * padding
            assert (
                sampled.rows.tolist()
                == [row.index if item.samples else -1 for row, item in zip(rows, items, strict=True)] + filling
            )
            assert sampled.positions.tolist()[: len(items)] == [item.start + item.num_tokens for item in items]
            if padding:
                for paging in steps.inputs.batch(len(items) + 1, tokens + 1, plan).pagings:
                    assert paging.slots[-1] == -1
                    assert paging.context_lengths[-1] == 0
                    assert paging.query_starts[-1] == tokens + 1


def assert_same_pagings(
    found: Sequence[PagedBatch], expected: Sequence[PagedBatch], items: list[ScheduledRequest]
) -> None:
    """Of block tables, what the items' windows see."""
    for group, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        for name in ("query_starts", "context_lengths", "slots"):
            assert torch.equal(getattr(ours, name).cpu(), getattr(theirs, name)), name
        for tables in (ours.block_tables, theirs.block_tables):
            for table, item in zip(tables, items, strict=True):
                first, blocks = item.blocks[group]
                assert table[first : first + len(blocks)].tolist() == list(blocks)


def test_a_step_larger_than_any_before_gets_room(gpu: torch.device) -> None:
    """More new blocks than the first buffers hold."""
    tokens = 5000
    rows = RequestRows(1, tokens, tokens, 256, gpu)
    inputs = StepInputs(rows.tables, max_items=1, max_tokens=tokens, block_size=1)
    request = make_request("r", [3] * tokens, 1)
    blocks = tuple(reversed(range(tokens)))
    for length in (2, tokens, 1):
        inputs.write(
            [ScheduledRequest(request, 0, length, (BlockSpan(0, blocks[:length]),), True)], rows.admit([request]), 0, 64
        )
        batch = inputs.batch(1, length, LaunchPlan(0, 0, 1, 0))
        assert batch.pagings[0].slots.tolist() == list(blocks[:length])


def test_a_step_of_more_tokens_than_there_is_memory_for_is_refused(gpu: torch.device) -> None:
    rows = RequestRows(1, 16, 1, 256, gpu)
    inputs = StepInputs(rows.tables, max_items=1, max_tokens=8, block_size=16)
    request = make_request("r", [3] * 16, 1)
    with pytest.raises(ValueError, match="9 tokens in memory for 8"):
        inputs.write([ScheduledRequest(request, 0, 9, (BlockSpan(0, (0,)),), True)], rows.admit([request]), 0, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_can_be_written_while_the_one_before_is_on_its_way() -> None:
    """The device is kept busy, so that two steps' words are under way at once; each arrives as it was."""
    rows = RequestRows(1, 64, 64, 256, DEVICE)
    inputs = StepInputs(rows.tables, max_items=1, max_tokens=64, block_size=1)
    request = make_request("r", list(range(64)), 1)
    found = []
    torch.cuda._sleep(200_000_000)
    for start in range(2):
        item = ScheduledRequest(request, start, 1, (BlockSpan(0, tuple(range(start + 1))),), True)
        inputs.write([item], rows.admit([request]), 0, 64)
        found.append(inputs.batch(1, 1, LaunchPlan(1, 0, 1, 0)).token_ids.clone())
    assert [tokens.item() for tokens in found] == [0, 1]
