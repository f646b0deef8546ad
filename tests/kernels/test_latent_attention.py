"""Latent attention on a CPU, against the heads that its rows stand for."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from kernels.attention import PagedBatch
from kernels.latent_attention import LatentCache, latent_attention, reference, store_latent


class Sizes(NamedTuple):
    heads: int
    latent: int
    rope: int
    nope: int
    value: int


SIZES = [Sizes(3, 24, 4, 12, 20), Sizes(16, 40, 6, 8, 8), Sizes(1, 7, 2, 5, 3), Sizes(2, 128, 64, 32, 64)]


class Sequence(NamedTuple):
    query: int
    context: int


class Problem:
    """Random tokens of several sequences, in blocks that lie anywhere in a cache of NaN."""

    def __init__(self, sequences: list[Sequence], sizes: Sizes, dtype: torch.dtype, block_size: int, seed: int) -> None:
        self.sequences, self.sizes, self.dtype, self.block_size = sequences, sizes, dtype, block_size
        self._generator = torch.Generator().manual_seed(seed)
        self.weight = self._random(sizes.latent)
        self.key_up = self._random(sizes.heads, sizes.nope, sizes.latent)
        self.value_up = self._random(sizes.heads, sizes.value, sizes.latent)
        self.queries = [self._random(s.context, sizes.heads, sizes.nope + sizes.rope) for s in sequences]
        self.compressed = [self._random(s.context, sizes.latent + sizes.rope) for s in sequences]
        self.angles = [torch.randn(s.context, sizes.rope // 2, generator=self._generator) for s in sequences]
        self.scale = (sizes.nope + sizes.rope) ** -0.5 / sizes.latent**0.5

    def expected(self) -> torch.Tensor:
        """Heads one by one, their keys and values in full."""
        return torch.cat([self._expected(index) for index in range(len(self.sequences))])

    def _expected(self, index: int) -> torch.Tensor:
        sizes, angles = self.sizes, self.angles[index]
        query, compressed = self.queries[index].float(), self.compressed[index].float()
        latent = rms_norm(compressed[:, : sizes.latent], (sizes.latent,), self.weight.float(), 1e-6)
        rope_key = _turned(compressed[:, sizes.latent :], angles)
        outputs = []
        for head in range(sizes.heads):
            key = torch.cat([latent @ self.key_up[head].float().T, rope_key], dim=1)
            value = latent @ self.value_up[head].float().T
            rope_query = _turned(query[:, head, sizes.nope :], angles)
            whole = torch.cat([query[:, head, : sizes.nope], rope_query], dim=1)
            parts = (part[None, None] for part in (whole, key, value))
            outputs.append(scaled_dot_product_attention(*parts, is_causal=True, scale=self.scale)[0, 0])
        return torch.stack(outputs, dim=1)[-self.sequences[index].query :]

    def actual(self) -> torch.Tensor:
        """What came before in a batch of its own, then the queries: absorbed and in the latent space."""
        needed = [-(-sequence.context // self.block_size) for sequence in self.sequences]
        order = torch.randperm(sum(needed) + 2, generator=self._generator).tolist()
        width = self.sizes.latent + self.sizes.rope
        rows = torch.full((len(order), self.block_size, width), torch.nan).to(self.dtype)
        cache = LatentCache(rows, self.sizes.latent)
        table = torch.full((len(needed), max(needed)), 2**30, dtype=torch.int32)
        for index, count in enumerate(needed):
            table[index, :count] = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32)
        self._run(cache, table, [Sequence(s.context - s.query, s.context - s.query) for s in self.sequences])
        return self._run(cache, table, self.sequences)

    def _run(self, cache: LatentCache, table: torch.Tensor, parts: list[Sequence]) -> torch.Tensor:
        present = [index for index, part in enumerate(parts) if part.query]
        slices = [slice(parts[index].context - parts[index].query, parts[index].context) for index in present]
        if not present:
            return torch.empty(0)
        positions = [torch.arange(part.start, part.stop) for part in slices]
        slots = [
            table[index, position // self.block_size].long() * self.block_size + position % self.block_size
            for index, position in zip(present, positions, strict=True)
        ]
        ranges = list(zip(present, slices, strict=True))
        query, compressed, angles = (
            torch.cat([part[index][tokens] for index, tokens in ranges])
            for part in (self.queries, self.compressed, self.angles)
        )
        store_latent(query, compressed, self.weight, 1e-6, angles.cos(), angles.sin(), torch.cat(slots), cache)
        nope = self.sizes.nope
        absorbed = torch.einsum("qhn,hnl->qhl", query[..., :nope].float(), self.key_up.float()).to(self.dtype)
        counts = torch.tensor([0, *(parts[index].query for index in present)]).cumsum(0)
        contexts = torch.tensor([parts[index].context for index in present], dtype=torch.int32)
        batch = PagedBatch(counts.to(torch.int32), contexts, table[present], torch.cat(slots))
        attended = latent_attention(torch.cat([absorbed, query[..., nope:]], dim=-1), cache, batch, self.scale)
        return torch.einsum("qhl,hvl->qhv", attended.float(), self.value_up.float())

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator).to(self.dtype)


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """``[tokens, rope]``: pairs as complex numbers, times a unit of the angle."""
    half = angles.shape[1]
    pairs = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([pairs.real, pairs.imag], dim=1)


@st.composite
def _problems(draw: st.DrawFn) -> Problem:
    sequences = []
    for _ in range(draw(st.integers(1, 4))):
        context = draw(st.integers(1, 90))
        sequences.append(Sequence(draw(st.one_of(st.just(1), st.just(context), st.integers(1, context))), context))
    return Problem(
        sequences,
        draw(st.sampled_from(SIZES)),
        draw(st.sampled_from([torch.float32, torch.bfloat16])),
        draw(st.sampled_from([16, 32])),
        draw(st.integers(0, 2**31)),
    )


@settings(max_examples=50, deadline=None)
@given(problem=_problems())
def test_random_batches(problem: Problem) -> None:
    expected = problem.expected()
    tolerance = (1e-4 if problem.dtype == torch.float32 else 5e-2) * expected.abs().max().item()
    torch.testing.assert_close(problem.actual(), expected, atol=tolerance, rtol=0)


def test_a_chunk_longer_than_a_tile_continues_a_context() -> None:
    problem = Problem([Sequence(600, 700)], Sizes(2, 16, 4, 8, 8), torch.float32, 16, seed=0)
    torch.testing.assert_close(problem.actual(), problem.expected(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [None, torch.tensor([0.5])], ids=["plain", "float8"])
def test_tokens_without_a_slot_are_not_stored(scale: torch.Tensor | None) -> None:
    dtype = torch.float32 if scale is None else torch.float8_e4m3fn
    caches = [LatentCache(torch.full((2, 16, 10), 3.0).to(dtype), 8, scale) for _ in "ab"]
    numbers = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    angles, slots = torch.zeros(3, 1), torch.tensor([4, -1, 17])
    for store, cache in zip((store_latent, reference.store_latent), caches, strict=True):
        store(numbers[:, None].clone(), numbers, torch.ones(8), 1e-6, angles.cos(), angles.sin(), slots, cache)
        stored = (cache.rows.float() != 3).any(dim=2).flatten()
        assert stored.nonzero().flatten().tolist() == [4, 17]
    torch.testing.assert_close(caches[0].rows.float(), caches[1].rows.float())
