"""Latent attention and what fills its cache on a GPU against their references, over random ragged batches, in caches
full of NaN."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.attention import Launch, PagedBatch
from kernels.latent_attention import LatentCache, latent_attention, reference

FP8 = torch.float8_e4m3fn
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


class Sequence(NamedTuple):
    query: int
    context: int


class Problem:
    """Random queries and cached rows of several sequences, in blocks that lie anywhere; every slot that no token uses
    holds NaN, every entry of a block table that no context needs a block that is not there."""

    def __init__(
        self,
        sequences: list[Sequence],
        *,
        heads: int = 4,
        dims: tuple[int, int] = (32, 16),
        block_size: int = 16,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        tokens = sum(sequence.query for sequence in sequences)
        self.query = torch.randn(tokens, heads, sum(dims), generator=generator).to(dtype)
        self.latent_dim = dims[0]
        needed = [-(-sequence.context // block_size) for sequence in sequences]
        order = torch.randperm(sum(needed) + 2, generator=generator).tolist()
        self.tables = torch.full((len(sequences), max(needed) + 1), 2**30, dtype=torch.int32)
        self.rows = torch.full((len(order), block_size, sum(dims)), torch.nan)
        for index, (sequence, count) in enumerate(zip(sequences, needed, strict=True)):
            blocks = [order.pop() for _ in range(count)]
            self.tables[index, :count] = torch.tensor(blocks, dtype=torch.int32)
            for position in range(sequence.context):
                row = torch.randn(sum(dims), generator=generator)
                self.rows[blocks[position // block_size], position % block_size] = row
        self.rows = self.rows.to(dtype)
        self.scale: torch.Tensor | None = None
        starts = [0]
        for sequence in sequences:
            starts.append(starts[-1] + sequence.query)
        self.starts = torch.tensor(starts, dtype=torch.int32)
        self.contexts = torch.tensor([sequence.context for sequence in sequences], dtype=torch.int32)

    def store_in_float8(self) -> None:
        self.scale = torch.tensor([0.5])
        self.rows = (self.rows.float() / self.scale).to(FP8)

    def solve(self, device: torch.device, launch: Launch | None = None) -> torch.Tensor:
        return latent_attention(self.query.to(device), self._cache(device), self._batch(device, launch), 0.2)

    def check(self, device: torch.device, launch: Launch | None = None) -> None:
        cpu = torch.device("cpu")
        expected = reference.latent_attention(self.query, self._cache(cpu), self._batch(cpu, None), 0.2)
        assert not expected.isnan().any()
        tolerance = TOLERANCE[self.query.dtype]
        actual = self.solve(device, launch)
        torch.testing.assert_close(actual.cpu(), expected, atol=tolerance, rtol=tolerance)

    def _cache(self, device: torch.device) -> LatentCache:
        return LatentCache(self.rows.to(device), self.latent_dim, None if self.scale is None else self.scale.to(device))

    def _batch(self, device: torch.device, launch: Launch | None) -> PagedBatch:
        slots = torch.empty(self.query.shape[0], dtype=torch.int64, device=device)
        integers = (part.to(device) for part in (self.starts, self.contexts, self.tables))
        return PagedBatch(*integers, slots=slots, launch=launch)


def _launch(device: torch.device, decodes: int, max_queries: int, splits: int, split_tokens: int) -> Launch:
    return Launch(decodes, max_queries, splits, torch.tensor([split_tokens], dtype=torch.int32, device=device))


@st.composite
def _problems(draw: st.DrawFn) -> Problem:
    sequences = []
    for _ in range(draw(st.integers(1, 3))):
        context = draw(st.one_of(st.sampled_from([1, 15, 16, 17, 63, 64, 65]), st.integers(1, 150)))
        sequences.append(Sequence(draw(st.one_of(st.just(1), st.integers(1, min(context, 40)))), context))
    problem = Problem(
        sorted(sequences, key=lambda sequence: sequence.query > 1),
        heads=draw(st.sampled_from([1, 3, 16, 40])),
        dims=draw(st.sampled_from([(32, 16), (64, 64), (16, 32)])),
        block_size=draw(st.sampled_from([16, 32, 128])),
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])),
        seed=draw(st.integers(0, 2**31)),
    )
    if problem.query.dtype != torch.float32 and draw(st.booleans()):
        problem.store_in_float8()
    return problem


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=_problems())
def test_random_batches(*, gpu: torch.device, problem: Problem) -> None:
    problem.check(gpu)


@pytest.mark.parametrize(("splits", "heads"), [(1, 80), (2, 5), (4, 20), (8, 5), (8, 65)])
def test_decodes_share_their_contexts_in_splits(gpu: torch.device, splits: int, heads: int) -> None:
    """Contexts that need all splits, some, one, and the least tokens that a split can have."""
    problem = Problem([Sequence(1, 250), Sequence(1, 70), Sequence(1, 1)], heads=heads)
    problem.check(gpu, _launch(gpu, 3, 0, splits, -(-250 // splits)))


def test_a_plan_for_shorter_contexts_loses_nothing(gpu: torch.device) -> None:
    """The last split takes what the plan left over."""
    Problem([Sequence(1, 200)]).check(gpu, _launch(gpu, 1, 0, 2, 64))


@pytest.mark.parametrize("splits", [1, 4])
def test_rows_that_fill_a_graph_are_finite(gpu: torch.device, splits: int) -> None:
    problem = Problem([Sequence(1, 100), Sequence(1, 0), Sequence(1, 30), Sequence(1, 0)])
    output = problem.solve(gpu, _launch(gpu, 4, 0, splits, 64))
    assert output.isfinite().all()
    problem.check(gpu, _launch(gpu, 4, 0, splits, 64))


def test_decodes_and_chunks_together(gpu: torch.device) -> None:
    problem = Problem([Sequence(1, 70), Sequence(1, 3), Sequence(30, 30), Sequence(5, 90)], heads=20)
    problem.check(gpu, _launch(gpu, 2, 30, 2, 64))


def test_the_size_of_deepseek(gpu: torch.device) -> None:
    problem = Problem(
        [Sequence(1, 70), Sequence(2, 65)], heads=128, dims=(512, 64), block_size=64, dtype=torch.bfloat16
    )
    problem.check(gpu)


def test_large_scores_do_not_overflow(gpu: torch.device) -> None:
    problem = Problem([Sequence(3, 70)])
    problem.query *= 1e4
    problem.check(gpu)


@pytest.mark.parametrize(
    ("dims", "block_size", "dtype"),
    [((48, 16), 16, None), ((32, 8), 16, None), ((32, 16), 24, None), ((32, 16), 16, FP8)],
)
def test_what_no_kernel_serves_is_refused(
    gpu: torch.device, dims: tuple[int, int], block_size: int, dtype: torch.dtype | None
) -> None:
    problem = Problem([Sequence(1, 5)], dims=dims, block_size=block_size)
    problem.rows = problem.rows.to(dtype or torch.float32)
    with pytest.raises(ValueError, match="latent attention on a GPU takes"):
        problem.solve(gpu)


def test_the_reference_is_multi_head_attention_with_its_projections_absorbed() -> None:
    """Keys and values of every head computed from the latents, as the method defines them, in one sequence."""
    tokens, heads, latent_dim, rope_dim, head_dim = 7, 3, 16, 4, 8
    generator = torch.Generator().manual_seed(0)
    latents, ropes = torch.randn(tokens, latent_dim, generator=generator), torch.randn(tokens, 4, generator=generator)
    key_up, value_up = torch.randn(2, heads, head_dim, latent_dim, generator=generator)
    query = torch.randn(tokens, heads, head_dim + rope_dim, generator=generator)
    keys = torch.cat((torch.einsum("hdl,tl->thd", key_up, latents), ropes[:, None].expand(-1, heads, -1)), dim=2)
    values = torch.einsum("hdl,tl->thd", value_up, latents)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(part.transpose(0, 1) for part in (query, keys, values)), is_causal=True, scale=0.3
    )
    absorbed = torch.cat((torch.einsum("thd,hdl->thl", query[..., :head_dim], key_up), query[..., head_dim:]), dim=2)
    cache = LatentCache(torch.cat((latents, ropes), dim=1)[None], latent_dim)
    integers = (torch.tensor(numbers, dtype=torch.int32) for numbers in ([0, tokens], [tokens], [[0]]))
    batch = PagedBatch(*integers, slots=torch.arange(tokens))
    output = latent_attention(absorbed, cache, batch, 0.3)
    actual = torch.einsum("hdl,thl->htd", value_up, output)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
