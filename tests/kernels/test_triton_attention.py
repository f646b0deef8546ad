"""Triton's paged attention against the reference, with NaN in every slot and every output element that nobody wrote.

The kernels get a cache and a block table of their own: what no query sees (unused slots, all before a window) is NaN
there, and table entries that nothing needs point far outside the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.attention import AttentionVariant, Launch, LayerCache, PagedBatch, paged_attention
from kernels.attention import reference as attention_reference
from kernels.gpu import trying


class Heads(NamedTuple):
    query: int
    kv: int
    dim: int


FEW_HEADS = Heads(4, 2, 16)


class Sequence(NamedTuple):
    query: int
    context: int


class Splits(NamedTuple):
    count: int
    tokens: int


@dataclass(frozen=True)
class Problem:
    """A batch, decodes first. Without ``splits`` the launch is left to the kernels.

    :ivar tiles: a tile's keys and a prefill program's rows, so few that short contexts fill several; None: the table's.
    :ivar max_queries: says more than the longest chunk has, as an upper bound may.
    """

    sequences: tuple[Sequence, ...]
    heads: Heads = FEW_HEADS
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    fp8: bool = False
    window: int | None = None
    softcap: float | None = None
    alibi: bool = False
    sinks: bool = False
    splits: Splits | None = None
    scale: float = 0.3
    tiles: tuple[int, int] | None = (16, 16)
    seed: int = 0
    query_factor: float = 1.0
    max_queries: int | None = None


@contextmanager
def uninitialized_memory_is_nan() -> Iterator[None]:
    """``torch.empty`` fills what it returns with NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


class Built:
    """A problem's tensors: ``pages`` are the true ones, ``poisoned`` what the kernels get."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        heads, block_size = problem.heads, problem.block_size
        self.generator = torch.Generator().manual_seed(problem.seed)
        needed = [-(-sequence.context // block_size) for sequence in problem.sequences]
        blocks = sum(needed) + 2
        order = torch.randperm(blocks, generator=self.generator).tolist()
        shape = (len(needed), max(needed, default=0) + 3)
        self.table = torch.zeros(shape, dtype=torch.int32)
        self.poisoned_table = torch.full(shape, 2**30, dtype=torch.int32)
        seen = torch.zeros(blocks, block_size, dtype=torch.bool)
        for index, (sequence, count) in enumerate(zip(problem.sequences, needed, strict=True)):
            self.table[index, :count] = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32)
            first = 0 if problem.window is None else max(sequence.context - sequence.query - problem.window + 1, 0)
            positions = torch.arange(first, sequence.context)
            seen[self.table[index, positions // block_size].long(), positions % block_size] = True
            self.poisoned_table[index, first // block_size : count] = self.table[index, first // block_size : count]
        stored = torch.float8_e4m3fn if problem.fp8 else problem.dtype
        pages = [self._random(blocks, heads.kv, block_size, heads.dim).to(stored) for _ in "kv"]
        scales = torch.rand(2, heads.kv, generator=self.generator) + 0.5 if problem.fp8 else None
        unseen = ~seen[:, None, :, None]
        poisoned = [part.float().masked_fill(unseen, torch.nan).to(stored) for part in pages]
        self.cache, self.poisoned = LayerCache(*pages, scales), LayerCache(*poisoned, scales)
        starts = torch.tensor([0, *(sequence.query for sequence in problem.sequences)]).cumsum(0)
        self.starts = starts.to(torch.int32)
        self.contexts = torch.tensor([sequence.context for sequence in problem.sequences], dtype=torch.int32)
        # A view, as of a fused product of queries, keys and values.
        fused = self._random(int(starts[-1]), heads.query + 2, heads.dim) * problem.query_factor
        fused = fused.to(problem.dtype)
        fused[:, heads.query :] = torch.nan
        self.query = fused[:, : heads.query]
        self.variant = AttentionVariant(
            problem.window,
            problem.softcap,
            torch.rand(heads.query, generator=self.generator) if problem.alibi else None,
            self._random(heads.query) * 3 if problem.sinks else None,
        )

    def expected(self) -> torch.Tensor:
        batch = PagedBatch(self.starts, self.contexts, self.table, torch.empty(0))
        return attention_reference.paged_attention(self.query, self.cache, batch, self.problem.scale, self.variant)

    def actual(self, device: torch.device) -> torch.Tensor:
        batch = PagedBatch(
            self.starts.to(device),
            self.contexts.to(device),
            self.poisoned_table.to(device),
            torch.empty(0),
            self._launch(device),
        )
        cache = LayerCache(*(None if part is None else part.to(device) for part in self.poisoned))
        query = torch.empty_strided(self.query.shape, self.query.stride(), dtype=self.query.dtype, device=device)
        query.copy_(self.query)
        slopes, sinks = self.variant.alibi_slopes, self.variant.sinks
        variant = replace(
            self.variant,
            alibi_slopes=None if slopes is None else slopes.to(device),
            sinks=None if sinks is None else sinks.to(device),
        )
        with _tiles(self.problem), uninitialized_memory_is_nan():
            return paged_attention(query, cache, batch, self.problem.scale, variant).cpu()

    def _launch(self, device: torch.device) -> Launch | None:
        splits, sequences = self.problem.splits, self.problem.sequences
        if splits is None:
            return None
        queries = [sequence.query for sequence in sequences]
        decodes = next((index for index, count in enumerate(queries) if count > 1), len(queries))
        tokens = torch.tensor([splits.tokens], dtype=torch.int32, device=device)
        return Launch(decodes, self.problem.max_queries or max(queries[decodes:], default=0), splits.count, tokens)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)


@contextmanager
def _tiles(problem: Problem) -> Iterator[None]:
    """With the problem's tiles instead of the table's."""
    with ExitStack() as stack:
        if problem.tiles is not None:
            tile, rows = problem.tiles
            case = "d64.fp8" if problem.fp8 else "d64.f32" if problem.dtype == torch.float32 else "d64"
            common = {"tile": tile, "num_warps": 4, "num_stages": 2}
            stack.enter_context(trying("attention", "decode", case, {**common, "rows": 16}))
            stack.enter_context(trying("attention", "decode", case + ".wide", {**common, "rows": 64}))
            stack.enter_context(trying("attention", "prefill", case, {**common, "rows": rows}))
        yield


def check(problem: Problem, device: torch.device) -> None:
    """Compare; rows that only fill a graph need only be finite."""
    built = Built(problem)
    expected, actual = built.expected(), built.actual(device)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert actual.is_contiguous()
    assert actual.isfinite().all()
    real = torch.repeat_interleave(built.contexts > 0, built.starts.diff())
    tolerance = 2e-5 if problem.dtype == torch.float32 and not problem.fp8 else 2e-2
    torch.testing.assert_close(actual[real].float(), expected[real].float(), atol=tolerance, rtol=tolerance)


HEADS = [Heads(4, 4, 16), Heads(4, 2, 16), Heads(6, 2, 8), Heads(8, 1, 32), Heads(16, 1, 16), Heads(3, 1, 40)]
CONTEXTS = st.one_of(st.sampled_from([1, 15, 16, 17, 31, 32, 33, 63, 64, 65]), st.integers(1, 150))


@st.composite
def decodes(draw: st.DrawFn) -> Sequence:
    """Of one query token, or none, or a row that only fills a graph."""
    kind = draw(st.sampled_from(["real", "real", "real", "none", "padding"]))
    return Sequence(0 if kind == "none" else 1, 0 if kind == "padding" else draw(CONTEXTS))


@st.composite
def chunks(draw: st.DrawFn) -> Sequence:
    context = draw(CONTEXTS)
    return Sequence(draw(st.one_of(st.just(context), st.integers(0, context))), context)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    first = draw(st.lists(decodes(), max_size=4))
    then = draw(st.lists(chunks(), max_size=2))
    longest = max((sequence.context for sequence in first), default=1)
    count = draw(st.sampled_from([1, 2, 4, 8]))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    return Problem(
        (*first, *sorted(then, key=lambda chunk: chunk.query <= 1)),
        draw(st.sampled_from(HEADS)),
        draw(st.sampled_from([16, 32, 64, 256])),
        dtype,
        dtype != torch.float32 and draw(st.booleans()),
        draw(st.one_of(st.none(), st.sampled_from([1, 5, 16, 40]))),
        draw(st.sampled_from([None, None, 2.0])),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.one_of(st.none(), st.integers(-(-longest // count), longest + 20).map(lambda t: Splits(count, t)))),
        draw(st.sampled_from([0.3, 1.0])),
        draw(st.sampled_from([(16, 16), (32, 32), (64, 32)])),
        draw(st.integers(0, 2**31)),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems())
def test_random_batches(gpu: torch.device, problem: Problem) -> None:
    check(problem, gpu)
