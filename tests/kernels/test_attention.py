"""Paged attention against the reference over random ragged batches, in caches full of NaN."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import QuerySpan, SlotRun, cpu, paged_attention, reference


@st.composite
def _batches(draw: st.DrawFn) -> tuple[list[tuple[int, list[int]]], int]:
    """Sequences as (query length, run lengths), and a seed."""
    sequences = []
    for _ in range(draw(st.integers(1, 5))):
        runs = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
        query = draw(st.one_of(st.just(1), st.just(sum(runs)), st.integers(1, sum(runs))))
        sequences.append((query, runs))
    return sequences, draw(st.integers(0, 2**31))


def _lay_out(
    sequences: list[tuple[int, list[int]]], generator: torch.Generator
) -> tuple[list[QuerySpan], list[int], int]:
    """Spans whose runs lie scattered, a poisoned slot between any two; the slots used; the cache's size."""
    order = [(index, length) for index, (_, runs) in enumerate(sequences) for length in runs]
    starts: dict[int, list[SlotRun]] = {index: [] for index in range(len(sequences))}
    used: list[int] = []
    position = 1
    for place in torch.randperm(len(order), generator=generator).tolist():
        index, length = order[place]
        starts[index].append(SlotRun(position, length))
        used += range(position, position + length)
        position += length + 1
    spans, row = [], 0
    for index, (query, _) in enumerate(sequences):
        spans.append(QuerySpan(row, query, tuple(starts[index])))
        row += query
    return spans, used, position


def _close(dtype: torch.dtype, actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@settings(max_examples=60, deadline=None)
@given(
    _batches(),
    st.sampled_from([(4, 4, 16), (4, 2, 16), (8, 1, 32), (6, 2, 8)]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_random_batches(
    batch: tuple[list[tuple[int, list[int]]], int], heads: tuple[int, int, int], dtype: torch.dtype
) -> None:
    sequences, seed = batch
    query_heads, kv_heads, head_dim = heads
    generator = torch.Generator().manual_seed(seed)
    spans, used, num_slots = _lay_out(sequences, generator)
    keys, values = (torch.full((num_slots, kv_heads, head_dim), torch.nan, dtype=dtype) for _ in range(2))
    keys[used] = torch.randn(len(used), kv_heads, head_dim, generator=generator).to(dtype)
    values[used] = torch.randn(len(used), kv_heads, head_dim, generator=generator).to(dtype)
    tokens = sum(query for query, _ in sequences)
    query = torch.randn(tokens, query_heads, head_dim, generator=generator).to(dtype)
    expected = reference.paged_attention(query, keys, values, spans, head_dim**-0.5)
    assert not expected.isnan().any()
    _close(dtype, paged_attention(query, keys, values, spans, head_dim**-0.5), expected)


def test_a_chunk_longer_than_a_tile_continues_a_context() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 900, 2, 16, generator=generator).unbind()
    query = torch.randn(600, 4, 16, generator=generator)
    spans = [QuerySpan(0, 600, (SlotRun(50, 800),))]
    assert query.shape[0] > 2 * cpu._TILE
    _close(
        torch.float32,
        paged_attention(query, keys, values, spans, 0.25),
        reference.paged_attention(query, keys, values, spans, 0.25),
    )


def test_the_reference_is_attention() -> None:
    """Worked by hand: two keys with scores 0 and ln 3, so the values weigh 1/4 and 3/4."""
    keys = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]])
    values = torch.tensor([[[4.0, 0.0]], [[0.0, 8.0]]])
    query = torch.tensor([[[0.0, 0.0]], [[torch.log(torch.tensor(3.0)), 0.0]]])
    output = reference.paged_attention(query, keys, values, [QuerySpan(0, 2, (SlotRun(0, 2),))], 1.0)
    torch.testing.assert_close(output, torch.tensor([[[4.0, 0.0]], [[1.0, 6.0]]]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_code_runs_on_a_gpu() -> None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 64, 2, 16, generator=generator).unbind()
    query = torch.randn(21, 4, 16, generator=generator)
    spans = [QuerySpan(0, 1, (SlotRun(3, 9),)), QuerySpan(1, 20, (SlotRun(20, 10), SlotRun(40, 15)))]
    expected = reference.paged_attention(query, keys, values, spans, 0.25)
    output = paged_attention(query.cuda(), keys.cuda(), values.cuda(), spans, 0.25)
    _close(torch.bfloat16, output.cpu(), expected)
