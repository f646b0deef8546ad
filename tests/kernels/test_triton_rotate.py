"""Norm, rotation and storage on a GPU against the reference: random heads, angles, slots and dtypes of the cache, which
is full of NaN before."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.attention import LayerCache
from kernels.rotate_and_store import HeadNorms, reference, rotate_and_store

FP8 = torch.float8_e4m3fn
HEADS = st.sampled_from([(1, 1), (4, 2), (8, 1), (5, 5), (40, 8), (71, 1)])
HEAD_DIMS = st.sampled_from([(64, 32), (64, 8), (80, 40), (80, 16), (128, 64), (128, 48), (16, 0), (256, 128), (10, 3)])
"""Elements of a head, and how many pairs of them are rotated."""


class Norm(NamedTuple):
    """What :class:`HeadNorms` are like; ``own`` are the weights of a head, ``wide`` those of float32."""

    kind: Literal["rms", "layer"]
    extent: Literal["head", "projection"]
    own: bool = False
    biased: bool = False
    wide: bool = False
    after: bool = False


NORMS = st.builds(
    Norm,
    st.sampled_from(["rms", "layer"]),
    st.sampled_from(["head", "projection"]),
    *[st.booleans()] * 4,
)


class Problem:
    """Random tokens, and slots for them that lie anywhere; every third has none."""

    def __init__(
        self,
        seed: int,
        tokens: int,
        *,
        heads: tuple[int, int],
        head: tuple[int, int],
        dtype: torch.dtype,
        block_size: int,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        num_heads, self.kv_heads = heads
        self.head_dim, half = head
        self.block_size, self.dtype = block_size, dtype
        self.blocks = tokens // block_size + 2
        width = (num_heads + 2 * self.kv_heads) * self.head_dim
        self.qkv = torch.randn(tokens, width, generator=generator).to(dtype)
        angles = torch.randn(tokens, half, generator=generator)
        self.cos, self.sin = angles.cos(), angles.sin()
        self.slots = torch.randperm(self.blocks * block_size, generator=generator)[:tokens]
        self.slots[2::3] = -1
        self.norms: HeadNorms | None = None
        self.scales: torch.Tensor | None = None
        self._generator = generator

    def normalise(self, like: Norm) -> None:
        sizes = [self.qkv.shape[1] - 2 * self.kv_heads * self.head_dim, self.kv_heads * self.head_dim]
        if not like.own and like.extent == "head":
            sizes = [self.head_dim, self.head_dim]
        dtype = torch.float32 if like.wide else self.dtype
        tensors = [torch.randn(size, generator=self._generator).to(dtype) for size in (*sizes, *sizes)]
        query_bias, key_bias = tensors[2:] if like.biased else (None, None)
        self.norms = HeadNorms(*tensors[:2], 1e-5, like.kind, like.extent, query_bias, key_bias, like.after)

    def scale(self) -> None:
        """A cache of float8 with scales, and tokens that it holds exactly, turned by quarters of a circle: Triton's
        interpreter rounds to float8 as no GPU does."""
        exponents = torch.randint(-3, 3, (2, self.kv_heads), generator=self._generator)
        self.scales = torch.exp2(exponents)
        size = self.qkv.abs().clamp(0.25, 4)
        self.qkv = torch.copysign(size, self.qkv).to(FP8).to(self.dtype)
        self.cos, self.sin = (quarters.round() for quarters in (self.cos, (1 - self.cos.round().square()).sqrt()))

    def cache(self, device: torch.device) -> LayerCache:
        shape = (self.blocks, self.kv_heads, self.block_size, self.head_dim)
        dtype = self.dtype if self.scales is None else FP8
        parts = (torch.full(shape, torch.nan, device=device).to(dtype) for _ in range(2))
        return LayerCache(*parts, None if self.scales is None else self.scales.to(device))

    def check(self, device: torch.device) -> None:
        expected_cache, cache = self.cache(torch.device("cpu")), self.cache(device)
        expected = reference.rotate_and_store(self.qkv, self.cos, self.sin, self.slots, expected_cache, self.norms)
        norms = self.norms and _on(device, self.norms)
        qkv = self.qkv.to(device, copy=True)
        cos, sin, slots = (part.to(device) for part in (self.cos, self.sin, self.slots))
        query = rotate_and_store(qkv, cos, sin, slots, cache, norms)
        _close(query, expected)
        _close(cache.key, expected_cache.key)
        _close(cache.value, expected_cache.value)


def _on(device: torch.device, norms: HeadNorms) -> HeadNorms:
    bias = None if norms.query_bias is None else norms.query_bias.to(device)
    key_bias = None if norms.key_bias is None else norms.key_bias.to(device)
    moved = {"query": norms.query.to(device), "key": norms.key.to(device)}
    return replace(norms, **moved, query_bias=bias, key_bias=key_bias)


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """To a little more than a unit in the last place; the empty places of a cache are NaN in both. Triton's interpreter
    cuts bfloat16 off where a GPU rounds."""
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2, FP8: 0.0}[expected.dtype]
    torch.testing.assert_close(actual.cpu().float(), expected.float(), atol=tolerance, rtol=tolerance, equal_nan=True)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    tokens=st.integers(1, 20),
    heads=HEADS,
    head=HEAD_DIMS,
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    block_size=st.sampled_from([1, 16, 64]),
    norm=st.one_of(st.none(), NORMS),
    scaled=st.booleans(),
)
def test_random_tokens(
    *,
    gpu: torch.device,
    seed: int,
    tokens: int,
    heads: tuple[int, int],
    head: tuple[int, int],
    dtype: torch.dtype,
    block_size: int,
    norm: Norm | None,
    scaled: bool,
) -> None:
    problem = Problem(seed, tokens, heads=heads, head=head, dtype=dtype, block_size=block_size)
    if norm is not None:
        problem.normalise(norm)
    elif scaled:
        problem.scale()
    problem.check(gpu)


@pytest.mark.parametrize("tokens", [31, 32, 33])
def test_tokens_around_a_program(gpu: torch.device, tokens: int) -> None:
    """One KV head of 128: 16 of them are a program's."""
    Problem(0, tokens, heads=(2, 1), head=(128, 64), dtype=torch.bfloat16, block_size=16).check(gpu)


def test_padding_rows_of_a_graph_store_nothing(gpu: torch.device) -> None:
    problem = Problem(0, 5, heads=(4, 2), head=(64, 32), dtype=torch.bfloat16, block_size=16)
    problem.slots.fill_(-1)
    cache = problem.cache(gpu)
    rotate_and_store(*(part.to(gpu) for part in (problem.qkv, problem.cos, problem.sin, problem.slots)), cache)
    assert cache.key.isnan().all()
    assert cache.value.isnan().all()


def _stored_in_float8(device: torch.device, key: list[float], value: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a cache with scales of 0.5 for keys and 2 for values holds of one token."""
    numbers = torch.tensor([0.0] * len(key) + key + value, device=device)[None]
    no_angles, slots = torch.empty(1, 0, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    parts = (torch.full((1, 1, 1, len(key)), torch.nan, device=device).to(FP8) for _ in range(2))
    cache = LayerCache(*parts, torch.tensor([[0.5], [2.0]], device=device))
    rotate_and_store(numbers, no_angles, no_angles, slots, cache)
    return cache.key.cpu().float().flatten(), cache.value.cpu().float().flatten()


def test_what_float8_cannot_hold_becomes_its_largest(gpu: torch.device) -> None:
    key, value = _stored_in_float8(gpu, [224.0, 225.0, -1e9, 1.0], [896.0, -1e9, 1e9, 1.0])
    assert key.tolist() == [448.0, 448.0, -448.0, 2.0]
    assert value.tolist() == [448.0, -448.0, 448.0, 0.5]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the interpreter rounds to float8 otherwise")
def test_float8_is_rounded_to_the_nearest_and_not_a_number_stays() -> None:
    key, value = _stored_in_float8(torch.device("cuda"), [0.99, 1.04, 75.0, torch.nan], [3.9, 0.33, 300.0, torch.nan])
    assert key[:3].tolist() == [2.0, 2.0, 144.0]
    assert value[:3].tolist() == [2.0, 0.171875, 144.0]
    assert key[3].isnan()
    assert value[3].isnan()


def test_slots_beyond_two_to_the_31_elements(gpu: torch.device) -> None:
    """The last block of a pool whose blocks are 2**28 elements apart: what lies between them is not touched."""
    problem = Problem(0, 2, heads=(2, 1), head=(64, 32), dtype=torch.bfloat16, block_size=16)
    problem.slots = torch.tensor([1, 9 * 16 + 5])
    base = torch.empty(9 * 2**28 + 1024, dtype=torch.bfloat16, device=gpu)
    base[:1024], base[-1024:] = torch.nan, torch.nan
    key = base.as_strided((10, 1, 16, 64), (2**28, 1024, 64, 1))
    cache = LayerCache(key, torch.full((10, 1, 16, 64), torch.nan, dtype=torch.bfloat16, device=gpu))
    rotate_and_store(*(part.to(gpu) for part in (problem.qkv, problem.cos, problem.sin, problem.slots)), cache)
    expected = reference.rotate(problem.qkv.view(2, 4, 64)[:, 2:3], problem.cos, problem.sin)
    _close(key[0, 0, 1], expected[0, 0])
    _close(key[9, 0, 5], expected[1, 0])
    assert key[9, 0, 6].isnan().all()
