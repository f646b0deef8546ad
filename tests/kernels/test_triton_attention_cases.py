"""The corners of Triton's paged attention, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kernels.attention import AttentionVariant, Launch, LayerCache, PagedBatch, paged_attention
from kernels.gpu import Device, standing_in
from tests.kernels.test_triton_attention import Heads, Problem, Sequence, Splits, check


def _decodes(*contexts: int) -> tuple[Sequence, ...]:
    return tuple(Sequence(1, context) for context in contexts)


BOUNDARIES = _decodes(1, 15, 16, 17, 31, 32, 33, 63, 64, 65)


@pytest.mark.parametrize("tile", [16, 32, 64])
@pytest.mark.parametrize("splits", [Splits(1, 80), Splits(4, 32)])
def test_decodes_end_anywhere_in_a_page_and_a_tile(gpu: torch.device, tile: int, splits: Splits) -> None:
    check(Problem(BOUNDARIES, Heads(2, 1, 16), 32, tiles=(tile, 16), splits=splits), gpu)


@pytest.mark.parametrize("tile", [16, 32, 64])
def test_chunks_end_anywhere_in_a_page_and_a_tile(gpu: torch.device, tile: int) -> None:
    chunks = (Sequence(2, 32), Sequence(33, 33), Sequence(16, 64), Sequence(17, 65), Sequence(3, 31))
    check(Problem(chunks, Heads(2, 1, 16), 32, tiles=(tile, 16)), gpu)


@pytest.mark.parametrize(
    "splits",
    [(1, 1), (2, 112), (2, 64), (4, 50), (8, 16), (2, 5), (16, 16), (64, 4)],
)
def test_any_number_of_splits(gpu: torch.device, splits: tuple[int, int]) -> None:
    """More than needed, with an empty tail, or with less than a tile each; the last takes what the others leave."""
    check(Problem(_decodes(100, 1, 16, 112), Heads(2, 1, 16), splits=Splits(*splits)), gpu)


@pytest.mark.parametrize("splits", [Splits(1, 64), Splits(4, 16)])
def test_rows_that_only_fill_a_graph(gpu: torch.device, splits: Splits) -> None:
    sequences = (Sequence(1, 40), Sequence(0, 40), Sequence(1, 0), Sequence(1, 3), Sequence(1, 0), Sequence(1, 0))
    for window in (None, 5):
        check(Problem(sequences, splits=splits, window=window, sinks=window is None), gpu)


@pytest.mark.parametrize("group", [1, 3, 4, 8, 16, 20, 71])
def test_any_number_of_heads_shares_a_key(gpu: torch.device, group: int) -> None:
    """Also in more programs than one: the tests' tiles hold 64 heads."""
    sequences = (*_decodes(33, 5), Sequence(3, 20))
    check(Problem(sequences, Heads(group, 1, 16), tiles=(32, 32), dtype=torch.float16, alibi=True, sinks=True), gpu)
    check(Problem(_decodes(33), Heads(2 * group, 2, 16), tiles=(32, 32), splits=Splits(2, 32)), gpu)


@pytest.mark.parametrize("dim", [64, 80, 96, 112, 128, 192, 256])
@pytest.mark.parametrize(("dtype", "fp8"), [(torch.bfloat16, False), (torch.float16, True), (torch.float32, False)])
def test_head_dims_with_the_tables_tiles(gpu: torch.device, dim: int, dtype: torch.dtype, fp8: bool) -> None:
    sequences = (*_decodes(70, 130), Sequence(5, 5), Sequence(40, 90))
    check(Problem(sequences, Heads(4, 2, dim), 32, dtype, fp8, scale=dim**-0.5, tiles=None, splits=Splits(2, 64)), gpu)


@pytest.mark.parametrize("block_size", [16, 32, 64, 128, 256])
def test_page_sizes_with_the_tables_tiles(gpu: torch.device, block_size: int) -> None:
    sequences = (*_decodes(block_size - 1, block_size, block_size + 1), Sequence(9, block_size + 3))
    check(Problem(sequences, Heads(2, 1, 64), block_size, torch.bfloat16, tiles=None), gpu)


@pytest.mark.parametrize("window", [1, 2, 7, 16, 17, 40, 1000])
def test_windows(gpu: torch.device, window: int) -> None:
    sequences = (*_decodes(100, 16, 3), Sequence(50, 90), Sequence(20, 20))
    for splits, tiles in ((Splits(1, 112), (16, 32)), (Splits(4, 32), (16, 32)), (Splits(2, 64), (64, 32))):
        check(Problem(sequences, Heads(2, 1, 16), window=window, splits=splits, tiles=tiles), gpu)


def test_a_window_is_shared_by_all_splits(gpu: torch.device) -> None:
    """The split that the longest context asks for would leave a window to one program."""
    check(Problem(_decodes(150), Heads(1, 1, 16), window=60, splits=Splits(4, 48)), gpu)


@pytest.mark.parametrize("capability", [80, 90])
def test_float8_with_and_without_the_devices_conversion(gpu: torch.device, capability: int) -> None:
    sequences = (*_decodes(33), Sequence(9, 20))
    with standing_in(Device(capability, 108)):
        check(Problem(sequences, Heads(4, 2, 32), dtype=torch.bfloat16, fp8=True), gpu)


def test_float8_beside_queries_that_float16_cannot_hold(gpu: torch.device) -> None:
    """As bfloat16 can: their scores are ordinary once scaled."""
    built = Problem(_decodes(20), Heads(2, 1, 16), dtype=torch.bfloat16, fp8=True, scale=1e-30, tiles=(16, 16))
    problem = replace(built, query_factor=1e30)
    check(problem, gpu)


def test_large_scores_do_not_overflow(gpu: torch.device) -> None:
    for softcap in (None, 30.0):
        sequences = (*_decodes(33), Sequence(9, 20))
        check(Problem(sequences, scale=1e4, softcap=softcap), gpu)


def test_a_chunk_is_longer_than_many_blocks_of_rows(gpu: torch.device) -> None:
    check(Problem((Sequence(70, 100), Sequence(0, 10), Sequence(2, 2)), Heads(3, 1, 16), tiles=(16, 16)), gpu)


def test_a_chunk_longer_than_its_launch_says_no_more_than_the_others(gpu: torch.device) -> None:
    """A graph's or another batch's upper bound."""
    sequences = (Sequence(1, 5), Sequence(30, 40), Sequence(2, 3))
    problem = Problem(sequences, splits=Splits(1, 16))
    check(replace(problem, max_queries=200), gpu)


def test_pages_beyond_two_to_the_31_elements(gpu: torch.device) -> None:
    """Only the last page exists in memory: the others are never touched."""
    dim, block_size = 256, 256
    blocks = 2**31 // (dim * block_size) + 2
    cache = torch.empty(blocks, 1, block_size, dim, dtype=torch.float8_e4m3fn, device=gpu)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, dim, generator=generator).to(torch.float8_e4m3fn)
    cache[-1, 0, :3] = tokens.to(gpu)
    query = torch.randn(3, 1, dim, generator=generator).to(torch.float16)

    def integers(*numbers: int) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=gpu)

    table = integers(blocks - 1)[None]
    layer = LayerCache(cache, cache, torch.ones(2, 1, device=gpu))
    for queries in (1, 3):
        batch = PagedBatch(integers(0, queries), integers(3), table, torch.empty(0))
        output = paged_attention(query[-queries:].to(gpu), layer, batch, 0.05).cpu().float()
        weights = (query[-queries:, 0].float() @ tokens.float().T * 0.05).masked_fill(
            torch.ones(queries, 3).triu(4 - queries).bool(), float("-inf")
        )
        torch.testing.assert_close(output[:, 0], weights.softmax(-1) @ tokens.float(), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (Problem(_decodes(3), Heads(2, 1, 272)), "at most 256"),
        (Problem(_decodes(3), Heads(3, 2, 16)), "a multiple"),
        (Problem(_decodes(3), block_size=8), "at least 16"),
        (Problem(_decodes(3), block_size=48), "a power of two"),
        (Problem(_decodes(3), scale=0.0), "positive"),
        (Problem(_decodes(3), dtype=torch.float64), "float16"),
    ],
)
def test_refusals(gpu: torch.device, problem: Problem, says: str) -> None:
    heads = problem.heads
    cache = torch.zeros(1, heads.kv, problem.block_size, heads.dim, dtype=problem.dtype, device=gpu)
    query = torch.zeros(1, heads.query, heads.dim, dtype=problem.dtype, device=gpu)
    integers = (torch.tensor(numbers, dtype=torch.int32, device=gpu) for numbers in ([0, 1], [3], [[0]]))
    with pytest.raises(ValueError, match=says):
        paged_attention(query, LayerCache(cache, cache), PagedBatch(*integers, torch.empty(0)), problem.scale)


def test_a_cache_of_another_dtype_is_refused(gpu: torch.device) -> None:
    cache = torch.zeros(1, 1, 16, 16, dtype=torch.float16, device=gpu)
    query = torch.zeros(1, 1, 16, device=gpu)
    integers = (torch.tensor(numbers, dtype=torch.int32, device=gpu) for numbers in ([0, 1], [3], [[0]]))
    with pytest.raises(ValueError, match="same dtype"):
        paged_attention(query, LayerCache(cache, cache), PagedBatch(*integers, torch.empty(0)), 1.0)


def test_a_cache_in_another_order_is_refused(gpu: torch.device) -> None:
    cache = torch.zeros(1, 16, 2, 16, device=gpu).transpose(1, 2)
    query = torch.zeros(1, 2, 16, device=gpu)
    integers = (torch.tensor(numbers, dtype=torch.int32, device=gpu) for numbers in ([0, 1], [3], [[0]]))
    with pytest.raises(ValueError, match="contiguous"):
        paged_attention(query, LayerCache(cache, cache), PagedBatch(*integers, torch.empty(0)), 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_one_graph_serves_batches_of_any_lengths() -> None:
    """Captured with rows of padding and four splits, replayed with other contexts and another split."""
    heads, dim, block_size, rows = 8, 128, 64, 4
    cache = LayerCache(*(torch.randn(16, 2, block_size, dim, device="cuda").bfloat16() for _ in "kv"))
    query = torch.randn(rows, heads, dim, device="cuda").bfloat16()
    starts = torch.arange(rows + 1, dtype=torch.int32, device="cuda")
    tables = torch.arange(16, dtype=torch.int32, device="cuda").reshape(rows, 4)
    contexts = torch.zeros(rows, dtype=torch.int32, device="cuda")
    split_tokens = torch.ones(1, dtype=torch.int32, device="cuda")
    batch = PagedBatch(starts, contexts, tables, torch.empty(0), Launch(rows, 0, 4, split_tokens))
    variant = AttentionVariant()
    paged_attention(query, cache, batch, 0.1, variant)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = paged_attention(query, cache, batch, 0.1, variant)
    for lengths, tokens in (([256, 1, 65, 0], 64), ([100, 200, 3, 64], 128)):
        contexts.copy_(torch.tensor(lengths))
        split_tokens.fill_(tokens)
        graph.replay()
        whole = PagedBatch(starts, contexts, tables, torch.empty(0), Launch(rows, 0, 1, split_tokens))
        expected = paged_attention(query, cache, whole, 0.1, variant)
        real = contexts > 0
        torch.testing.assert_close(captured[real], expected[real], atol=1e-2, rtol=1e-2)
        assert captured.isfinite().all()
