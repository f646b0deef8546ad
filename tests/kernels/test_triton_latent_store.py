"""What fills the compressed cache, on a GPU against its reference, in caches full of NaN."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.latent_attention import LatentCache, reference, store_latent

FP8 = torch.float8_e4m3fn


class Problem:
    """Random tokens, and slots for them that lie anywhere; every third has none. The projections are views of wider
    ones, as a model has them."""

    def __init__(
        self,
        tokens: int,
        *,
        heads: int = 3,
        dims: tuple[int, int, int] = (32, 16, 8),
        dtype: torch.dtype = torch.float32,
        block_size: int = 16,
        seed: int = 0,
    ) -> None:
        """``dims``: of the latent, of the rotated part, of the rest of a query head."""
        self.latent_dim, self.rope_dim, rest = dims
        generator = torch.Generator().manual_seed(seed)
        self.query = torch.randn(tokens, heads, self.rope_dim + rest, generator=generator).to(dtype)
        self.wide = torch.randn(tokens, 24 + self.latent_dim + self.rope_dim, generator=generator).to(dtype)
        self.weight = torch.randn(self.latent_dim, generator=generator).to(dtype)
        angles = torch.randn(tokens, self.rope_dim // 2, generator=generator)
        self.cos, self.sin = angles.cos(), angles.sin()
        blocks = tokens // block_size + 2
        self.slots = torch.randperm(blocks * block_size, generator=generator)[:tokens]
        self.slots[2::3] = -1
        self.cache = torch.full((blocks, block_size, self.latent_dim + self.rope_dim), torch.nan).to(dtype)
        self.scale: torch.Tensor | None = None
        self.epsilon = 1e-6

    def store_in_float8(self) -> None:
        """Numbers near the middle of what float8 rounds to a mantissa of 1.875, and for the rotated part quarters of a
        circle: Triton's interpreter loses the carry of others."""
        self.epsilon = 0.13
        self.scale = torch.tensor([0.5])
        self.cache = self.cache.to(FP8)
        self.wide = torch.copysign(torch.ones_like(self.wide), self.wide)
        self.weight = torch.exp2(self.weight.float().clamp(-2, 2).round()).to(self.weight.dtype)
        self.cos, self.sin = torch.zeros_like(self.cos), torch.ones_like(self.sin)

    def check(self, device: torch.device) -> None:
        query, cache = self._store(device)
        expected_query, expected_cache = self.query.clone(), self.cache.clone()
        reference.store_latent(
            expected_query,
            self.wide[:, 24:],
            self.weight,
            self.epsilon,
            self.cos,
            self.sin,
            self.slots,
            LatentCache(expected_cache, self.latent_dim, self.scale),
        )
        _close(query, expected_query)
        _close(cache, expected_cache)

    def _store(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        query, cache, wide = (part.to(device, copy=True) for part in (self.query, self.cache, self.wide))
        weight, cos, sin, slots = (part.to(device) for part in (self.weight, self.cos, self.sin, self.slots))
        scale = None if self.scale is None else self.scale.to(device)
        latent_cache = LatentCache(cache, self.latent_dim, scale)
        store_latent(query, wide[:, 24:], weight, self.epsilon, cos, sin, slots, latent_cache)
        return query, cache


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """The empty places of a cache are NaN in both. Triton's interpreter cuts bfloat16 off where a GPU rounds."""
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2, FP8: 0.0}[expected.dtype]
    torch.testing.assert_close(actual.cpu().float(), expected.float(), atol=tolerance, rtol=tolerance, equal_nan=True)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.integers(1, 20),
    heads=st.sampled_from([1, 3, 16, 128]),
    dims=st.sampled_from([(32, 16, 8), (512, 64, 0), (512, 64, 128), (256, 32, 64), (40, 6, 2)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    block_size=st.sampled_from([1, 16, 64]),
    seed=st.integers(0, 2**31),
    in_float8=st.booleans(),
)
def test_random_tokens(
    *,
    gpu: torch.device,
    tokens: int,
    heads: int,
    dims: tuple[int, int, int],
    dtype: torch.dtype,
    block_size: int,
    seed: int,
    in_float8: bool,
) -> None:
    problem = Problem(tokens, heads=heads, dims=dims, dtype=dtype, block_size=block_size, seed=seed)
    if in_float8:
        problem.store_in_float8()
    problem.check(gpu)


def test_padding_rows_of_a_graph_store_nothing(gpu: torch.device) -> None:
    problem = Problem(9)
    problem.slots.fill_(-1)
    problem.check(gpu)
    assert problem._store(gpu)[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cpu(dtype: torch.dtype) -> None:
    Problem(9, dtype=dtype).check(torch.device("cpu"))


def test_the_reference_by_hand() -> None:
    """A latent of (3, 4), whose root mean square is √12.5, and a key (1, 0) turned by a quarter."""
    cache = LatentCache(torch.zeros(1, 2, 4), 2)
    query = torch.tensor([[[5.0, 0.0, 2.0]]])
    compressed, weight = torch.tensor([[3.0, 4.0, 1.0, 0.0]]), torch.tensor([1.0, 10.0])
    zero, one = torch.tensor([[0.0]]), torch.tensor([[1.0]])
    reference.store_latent(query, compressed, weight, 0.0, zero, one, torch.tensor([1]), cache)
    root = 12.5**0.5
    torch.testing.assert_close(cache.rows[0, 1], torch.tensor([3 / root, 40 / root, 0.0, 1.0]))
    assert not cache.rows[0, 0].any()
    torch.testing.assert_close(query, torch.tensor([[[5.0, -2.0, 0.0]]]))
