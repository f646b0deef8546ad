"""Products with weights in every CPU layout against their definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import linear
from kernels.activation import GatedKind
from kernels.activation import reference as activation_reference
from kernels.linear import cpu as linear_cpu
from kernels.linear import reference as linear_reference
from kernels.native import library

DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
SEEDS = st.integers(0, 2**31)


def _random(seed: int, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 1e-5 if expected.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


LAYOUTS = {"chosen": linear.EXACT.weight, "plain": linear.PlainWeight, "oneDNN": linear_cpu.PackedWeight}
SHAPES = st.sampled_from([(8, 16), (64, 96), (33, 130), (1, 2), (31, 64), (100, 7)])


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, dtype=DTYPES, tokens=st.integers(1, 40), shape=SHAPES, terms=st.tuples(*[st.booleans()] * 3))
def test_linear(
    *, layout: str, seed: int, dtype: torch.dtype, tokens: int, shape: tuple[int, int], terms: tuple[bool, bool, bool]
) -> None:
    bias, residual, wide = terms
    if layout == "oneDNN" and not linear_cpu.can_pack(dtype):
        dtype = torch.float32
    weight = _random(seed, dtype, *shape) / math.sqrt(shape[1])
    b = _random(seed + 1, dtype, shape[0]) if bias else None
    r = _random(seed + 3, dtype, tokens, shape[0]) if residual else None
    x = _random(seed + 2, dtype, tokens, shape[1])
    product = LAYOUTS[layout](weight.clone()).multiply(x, b, r, wide=wide)
    assert product.dtype == (torch.float32 if wide else dtype)
    _close(product.to(dtype), linear_reference.linear(x, weight, b, r))


INT8_LAYOUTS = {"chosen": linear.INT8.weight, "plain": linear_cpu.Int8Weight}


@pytest.mark.parametrize("layout", INT8_LAYOUTS)
@settings(deadline=None, max_examples=50)
@given(
    seed=SEEDS,
    dtype=DTYPES,
    tokens=st.integers(1, 40),
    shape=st.sampled_from([(8, 16), (64, 96), (33, 132), (40, 7)]),
    terms=st.booleans(),
)
def test_int8_linear(
    *, layout: str, seed: int, dtype: torch.dtype, tokens: int, shape: tuple[int, int], terms: bool
) -> None:
    """The same as rounding both sides first; rounding to the nearest may fall either way for a value half-way."""
    weight, x = _random(seed, dtype, *shape), _random(seed + 1, dtype, tokens, shape[1])
    b, r = (_random(seed + 2, dtype, shape[0]), _random(seed + 3, dtype, tokens, shape[0])) if terms else (None, None)
    expected = linear_reference.int8_linear(x, weight)
    if b is not None and r is not None:
        expected += b.float() + r.float()
    product = INT8_LAYOUTS[layout](weight.clone()).multiply(x, b, r, wide=True)
    step = x.float().abs().amax() * weight.float().abs().amax() / 127
    torch.testing.assert_close(product, expected, atol=2.5 * step.item(), rtol=1e-3)
    assert (product - expected).norm() < 0.02 * expected.norm() + step


@pytest.mark.parametrize("prepare", [linear.INT8.weight, linear_cpu.Int8Weight], ids=["chosen", "plain"])
def test_a_row_of_zeros_has_no_scale_and_gives_zeros(prepare: Callable[[torch.Tensor], linear.Weight]) -> None:
    weight = _random(0, torch.float32, 8, 16)
    weight[3] = 0
    x = _random(1, torch.float32, 2, 16)
    x[1] = 0
    product = prepare(weight).multiply(x)
    assert product[1].count_nonzero() == 0
    assert product[0, 3] == 0
    assert product[0].count_nonzero() == 7


@pytest.mark.parametrize("layout", [linear.EXACT, linear.INT8], ids=["exact", "int8"])
@settings(deadline=None, max_examples=50)
@given(
    seed=SEEDS,
    dtype=DTYPES,
    tokens=st.integers(1, 40),
    half=st.sampled_from([16, 48, 20, 1]),
    bias=st.booleans(),
    kind=st.sampled_from(get_args(GatedKind)),
)
def test_gated_linear(
    *, layout: linear.Layout, seed: int, dtype: torch.dtype, tokens: int, half: int, bias: bool, kind: GatedKind
) -> None:
    """The same as the layout's own product, then the activation in float32: nothing in between is rounded twice."""
    weight, x = _random(seed, dtype, 2 * half, 64) / 8, _random(seed + 1, dtype, tokens, 64)
    b = _random(seed + 2, dtype, 2 * half) if bias else None
    wide = layout.weight(weight.clone()).multiply(x, b, wide=True)
    product = layout.gated(weight.clone(), has_bias=bias, kind=kind).multiply(x, b)
    assert product.dtype == dtype
    _close(product, activation_reference.gated(wide, kind).to(dtype))


@pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
@pytest.mark.parametrize("prepare", [linear.EXACT.weight, linear.INT8.weight], ids=["exact", "int8"])
@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, dtype=DTYPES, tokens=st.integers(2, 230))
def test_compiled_products_do_not_depend_on_the_batch(
    prepare: Callable[[torch.Tensor], linear.Weight], seed: int, dtype: torch.dtype, tokens: int
) -> None:
    weight = prepare(_random(seed, dtype, 70, 64))
    x = _random(seed + 1, dtype, tokens, 64)
    together = weight.multiply(x)
    for row in (0, tokens // 2, tokens - 1):
        assert torch.equal(weight.multiply(x[row : row + 1]), together[row : row + 1])


@pytest.mark.parametrize("prepare", [linear.EXACT.weight, linear.INT8.weight], ids=["exact", "int8"])
def test_a_prepared_weight_keeps_nothing_of_its_source(prepare: Callable[[torch.Tensor], linear.Weight]) -> None:
    weight = _random(0, torch.float32, 16, 16)
    x = _random(1, torch.float32, 3, 16)
    prepared = prepare(weight)
    before = prepared.multiply(x)
    weight.fill_(torch.nan)
    assert torch.equal(prepared.multiply(x), before)


def test_a_product_refuses_what_does_not_fit() -> None:
    prepared = linear.EXACT.weight(_random(0, torch.float32, 16, 16))
    with pytest.raises((ValueError, RuntimeError)):
        prepared.multiply(_random(1, torch.float32, 3, 8))


@pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    weight, x = _random(0, torch.bfloat16, 700, 64), _random(1, torch.bfloat16, 300, 64)
    prepared = linear.EXACT.weight(weight)
    expected = prepared.multiply(x)
    library.set_threads(threads)
    try:
        for _ in range(20):
            assert torch.equal(prepared.multiply(x), expected)
    finally:
        library.set_threads(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_dtypes_that_no_layout_helps_stay_plain(dtype: torch.dtype) -> None:
    assert not linear_cpu.can_pack(dtype)
