"""Rotation, storage and paged attention against their references over random ragged batches, in caches full of NaN."""

from __future__ import annotations

import math
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels.attention
import kernels.rotate_and_store
from kernels.attention import LayerCache, PagedBatch
from kernels.attention import cpu as attention_cpu
from kernels.attention import reference as attention_reference
from kernels.native import library
from kernels.rotate_and_store import cpu as storage_cpu
from kernels.rotate_and_store import reference as storage_reference

HEADS = [(4, 4, 16), (4, 2, 16), (8, 1, 32), (6, 2, 8), (71, 1, 16), (3, 1, 80)]


class Form(NamedTuple):
    """One way to rotate, store and attend; what a module stores, only it can read."""

    attention: ModuleType
    storage: ModuleType


CHOSEN = Form(kernels.attention, kernels.rotate_and_store)
PLAIN = Form(attention_cpu, storage_cpu)
REFERENCE = Form(attention_reference, storage_reference)


class Sequence(NamedTuple):
    query: int
    context: int


class Problem:
    """Random tokens of several sequences, in blocks that lie anywhere; every slot that no token uses holds NaN."""

    def __init__(
        self, sequences: list[Sequence], heads: tuple[int, int, int], block_size: int, dtype: torch.dtype, seed: int
    ) -> None:
        self.num_heads, self.kv_heads, self.head_dim = heads
        self.block_size, self.dtype = block_size, dtype
        generator = torch.Generator().manual_seed(seed)
        needed = [-(-sequence.context // block_size) for sequence in sequences]
        self.num_blocks = sum(needed) + 2
        order = torch.randperm(self.num_blocks, generator=generator).tolist()
        # Entries beyond a context point outside the cache: reading one would crash or give NaN.
        self.tables = torch.full((len(sequences), max(needed)), 2**30, dtype=torch.int32)
        self.slots: list[list[int]] = []
        for index, (sequence, count) in enumerate(zip(sequences, needed, strict=True)):
            blocks = [order.pop() for _ in range(count)]
            self.tables[index, :count] = torch.tensor(blocks, dtype=torch.int32)
            positions = range(sequence.context)
            self.slots.append([blocks[p // block_size] * block_size + p % block_size for p in positions])
        self.sequences = sequences
        width = (self.num_heads + 2 * self.kv_heads) * self.head_dim
        self.qkv = [torch.randn(s.context, width, generator=generator).to(dtype) for s in sequences]
        self.angles = [torch.randn(s.context, self.head_dim // 2, generator=generator) for s in sequences]

    def solve(self, form: Form, chunks: int = 1) -> torch.Tensor:
        """Attention's output for the last ``query`` tokens of every sequence, in as many batches as asked for."""
        shape = (self.num_blocks, self.kv_heads, self.block_size, self.head_dim)
        cache = LayerCache(*(torch.full(shape, torch.nan, dtype=self.dtype) for _ in range(2)))
        before = [Sequence(s.context - s.query, s.context - s.query) for s in self.sequences]
        self._run(form, cache, [(i, 0, s.context) for i, s in enumerate(before) if s.context])
        outputs: dict[int, list[torch.Tensor]] = {i: [] for i in range(len(self.sequences))}
        for chunk in range(chunks):
            parts = []
            for index, (query, context) in enumerate(self.sequences):
                first, last = query * chunk // chunks, query * (chunk + 1) // chunks
                if last > first:
                    parts.append((index, context - query + first, context - query + last))
            if parts:
                output = self._run(form, cache, parts)
                for index, start, stop in parts:
                    outputs[index].append(output[: stop - start])
                    output = output[stop - start :]
        return torch.cat([part for index in outputs for part in outputs[index]])

    def _run(self, form: Form, cache: LayerCache, parts: list[tuple[int, int, int]]) -> torch.Tensor:
        if not parts:
            return torch.empty(0)
        starts = [0]
        for _, start, stop in parts:
            starts.append(starts[-1] + stop - start)
        batch = PagedBatch(
            query_starts=torch.tensor(starts, dtype=torch.int32),
            context_lengths=torch.tensor([stop for _, _, stop in parts], dtype=torch.int32),
            block_tables=self.tables[[index for index, _, _ in parts]],
            slots=torch.tensor([slot for index, start, stop in parts for slot in self.slots[index][start:stop]]),
        )
        qkv = torch.cat([self.qkv[index][start:stop] for index, start, stop in parts])
        angles = torch.cat([self.angles[index][start:stop] for index, start, stop in parts])
        query = form.storage.rotate_and_store(qkv, angles.cos(), angles.sin(), batch.slots, cache)
        output: torch.Tensor = form.attention.paged_attention(query, cache, batch, self.head_dim**-0.5)
        return output


@st.composite
def _problems(draw: st.DrawFn) -> Problem:
    sequences = []
    for _ in range(draw(st.integers(1, 5))):
        context = draw(st.one_of(st.sampled_from([1, 31, 32, 33, 63, 64, 65]), st.integers(1, 200)))
        query = draw(st.one_of(st.just(1), st.just(context), st.integers(1, context)))
        sequences.append(Sequence(query, context))
    return Problem(
        sequences,
        draw(st.sampled_from(HEADS)),
        draw(st.sampled_from([16, 32, 64])),
        draw(st.sampled_from([torch.float32, torch.bfloat16])),
        draw(st.integers(0, 2**31)),
    )


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 2e-5 if expected.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("form", [CHOSEN, PLAIN], ids=["chosen", "plain torch"])
@settings(max_examples=60, deadline=None)
@given(problem=_problems())
def test_random_batches(form: Form, problem: Problem) -> None:
    expected = problem.solve(REFERENCE)
    assert not expected.isnan().any()
    _close(problem.solve(form), expected)


@settings(max_examples=30, deadline=None)
@given(problem=_problems(), chunks=st.integers(1, 4))
def test_chunks_give_what_the_whole_gives(problem: Problem, chunks: int) -> None:
    _close(problem.solve(CHOSEN, chunks), problem.solve(REFERENCE))


@pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
@settings(max_examples=30, deadline=None)
@given(problem=_problems(), chunks=st.integers(1, 4))
def test_compiled_results_do_not_depend_on_the_batch(problem: Problem, chunks: int) -> None:
    """Bit by bit: in any chunks, and with any neighbours."""
    if problem.block_size % 32:
        problem = Problem(
            problem.sequences, (problem.num_heads, problem.kv_heads, problem.head_dim), 32, problem.dtype, seed=1
        )
    together = problem.solve(CHOSEN)
    assert torch.equal(problem.solve(CHOSEN, chunks), together)
    row = 0
    for index, sequence in enumerate(problem.sequences):
        alone = Problem([sequence], (problem.num_heads, problem.kv_heads, problem.head_dim), 32, problem.dtype, seed=2)
        alone.qkv, alone.angles = [problem.qkv[index]], [problem.angles[index]]
        assert torch.equal(alone.solve(CHOSEN), together[row : row + sequence.query])
        row += sequence.query


def test_a_chunk_longer_than_a_tile_continues_a_context() -> None:
    problem = Problem([Sequence(600, 800)], (4, 2, 16), 16, torch.float32, seed=0)
    assert problem.sequences[0].query > 2 * attention_cpu._TILE
    for form in (CHOSEN, PLAIN):
        _close(problem.solve(form), problem.solve(REFERENCE))


def test_large_scores_do_not_overflow() -> None:
    problem = Problem([Sequence(3, 70)], (4, 2, 16), 32, torch.float32, seed=3)
    problem.qkv = [part * 1e4 for part in problem.qkv]
    _close(problem.solve(CHOSEN) / 1e4, problem.solve(REFERENCE) / 1e4)


def test_the_reference_is_attention() -> None:
    """Worked by hand: two keys with scores 0 and ln 3, so the values weigh 1/4 and 3/4."""
    keys = torch.tensor([[[[0.0, 0.0], [1.0, 0.0]]]])
    values = torch.tensor([[[[4.0, 0.0], [0.0, 8.0]]]])
    query = torch.tensor([[[0.0, 0.0]], [[math.log(3.0), 0.0]]])
    integers = (torch.tensor(numbers, dtype=torch.int32) for numbers in ([0, 2], [2], [[0]]))
    batch = PagedBatch(*integers, slots=torch.tensor([0, 1]))
    output = attention_reference.paged_attention(query, LayerCache(keys, values), batch, 1.0)
    torch.testing.assert_close(output, torch.tensor([[[4.0, 0.0]], [[1.0, 6.0]]]))


def test_the_reference_turns_by_the_angle_and_stores_what_it_turned() -> None:
    """One head of four elements and one of each for key and value; the second half of the pairs stays."""
    qkv = torch.tensor([[1.0, 0.0, 5.0, 6.0, 0.0, 2.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0]])
    angle = torch.tensor([[math.pi / 2]])
    cache = LayerCache(torch.zeros(2, 1, 2, 4), torch.zeros(2, 1, 2, 4))
    query = storage_reference.rotate_and_store(qkv, angle.cos(), angle.sin(), torch.tensor([3]), cache)
    torch.testing.assert_close(query, torch.tensor([[[0.0, 1.0, 5.0, 6.0]]]))
    torch.testing.assert_close(cache.key[1, 0, 1], torch.tensor([-2.0, 0.0, 7.0, 8.0]))
    torch.testing.assert_close(cache.value[1, 0, 1], torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert not cache.key[0].any()
    assert not cache.value[:, :, 0].any()


@pytest.mark.parametrize("form", [CHOSEN, PLAIN], ids=["chosen", "plain torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rotated", [2, 8, 32])
def test_part_of_a_head_can_be_rotated(form: Form, dtype: torch.dtype, rotated: int) -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(5, 4 * 32, generator=generator).to(dtype)
    angles = torch.randn(5, rotated // 2, generator=generator)
    slots = torch.tensor([40, 3, 4, 63, 0])
    caches = [LayerCache(torch.zeros(2, 1, 32, 32, dtype=dtype), torch.zeros(2, 1, 32, 32, dtype=dtype)) for _ in "ab"]
    ours = form.storage.rotate_and_store(qkv.clone(), angles.cos(), angles.sin(), slots, caches[0])
    theirs = storage_reference.rotate_and_store(qkv, angles.cos(), angles.sin(), slots, caches[1])
    _close(ours, theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_plain_form_runs_on_a_gpu() -> None:
    problem = Problem([Sequence(1, 9), Sequence(20, 25)], (4, 2, 16), 16, torch.float32, seed=0)
    expected = problem.solve(REFERENCE)
    problem.tables = problem.tables.cuda()
    problem.qkv, problem.angles = [part.cuda() for part in problem.qkv], [part.cuda() for part in problem.angles]
    with torch.device("cuda"):
        _close(problem.solve(CHOSEN).cpu(), expected)
