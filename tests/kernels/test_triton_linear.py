"""Products on a GPU: the Triton form of few rows and the library's of many, each against the definition."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import linear
from kernels.activation import GatedKind
from kernels.activation import reference as activation_reference
from kernels.gpu import trying
from kernels.linear import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SEEDS = st.integers(0, 2**31)
ROWS = st.sampled_from([1, 2, 7, 16, 17])
sampled = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _random(seed: int, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(actual.cpu().float(), expected.float(), atol=tolerance, rtol=tolerance)


@sampled
@given(
    seed=SEEDS,
    dtype=st.sampled_from(DTYPES),
    rows=ROWS,
    shape=st.sampled_from([(70, 96), (33, 130), (64, 512), (1, 7), (5, 1104)]),
    terms=st.tuples(*[st.booleans()] * 3),
)
def test_product(
    *,
    gpu: torch.device,
    seed: int,
    dtype: torch.dtype,
    rows: int,
    shape: tuple[int, int],
    terms: tuple[bool, bool, bool],
) -> None:
    bias, residual, wide = terms
    weight = _random(seed, dtype, *shape) / math.sqrt(shape[1])
    x = _random(seed + 1, dtype, rows, shape[1])
    b = _random(seed + 2, dtype, shape[0]) if bias else None
    r = _random(seed + 3, dtype, rows, shape[0]) if residual else None
    product = linear.EXACT.weight(weight.to(gpu)).multiply(
        x.to(gpu), None if b is None else b.to(gpu), None if r is None else r.to(gpu).clone(), wide=wide
    )
    assert product.dtype == (torch.float32 if wide else dtype)
    _close(product, reference.linear(x, weight, b, r), dtype)


@sampled
@given(
    seed=SEEDS,
    dtype=st.sampled_from(DTYPES),
    rows=ROWS,
    shape=st.sampled_from([(35, 96), (48, 130), (1, 16), (5, 2064)]),
    bias=st.booleans(),
    kind=st.sampled_from(get_args(GatedKind)),
)
def test_gated_product(
    *, gpu: torch.device, seed: int, dtype: torch.dtype, rows: int, shape: tuple[int, int], bias: bool, kind: GatedKind
) -> None:
    half, depth = shape
    weight = _random(seed, dtype, 2 * half, depth) / math.sqrt(depth)
    x = _random(seed + 1, dtype, rows, depth)
    b = _random(seed + 2, dtype, 2 * half) if bias else None
    prepared = linear.EXACT.gated(weight.to(gpu), has_bias=bias, kind=kind)
    product = prepared.multiply(x.to(gpu), None if b is None else b.to(gpu))
    assert product.dtype == dtype
    wide = reference.linear(x.float(), weight.float(), None if b is None else b.float())
    _close(product, activation_reference.gated(wide, kind), dtype)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("depth", [256, 240, 96])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_depth_split_in_parts(gpu: torch.device, rows: int, depth: int, dtype: torch.dtype) -> None:
    """8, 7.5 and 3 steps in 4 parts: the last part is short, or there is none."""
    weight = _random(0, dtype, 70, depth) / math.sqrt(depth)
    x, bias, residual = _random(1, dtype, rows, depth), _random(2, dtype, 70), _random(3, dtype, rows, 70)
    tile = {"block_n": 32, "block_k": 32, "num_warps": 4, "num_stages": 2, "programs": 1, "least_part": depth // 4}
    case = f"{8 * weight.element_size()}bit_narrow"
    kernels = [("row", "gated_row"), ("rows", "gated_rows")][rows > 1]
    with trying("linear", kernels[0], case, tile), trying("linear", kernels[1], case, tile):
        product = linear.EXACT.weight(weight.to(gpu)).multiply(x.to(gpu), bias.to(gpu), residual.to(gpu).clone())
        gated = linear.EXACT.gated(weight.to(gpu), has_bias=True).multiply(x.to(gpu), bias.to(gpu))
    _close(product, reference.linear(x, weight, bias, residual), dtype)
    wide = reference.linear(x.float(), weight.float(), bias.float())
    _close(gated, activation_reference.gated(wide, "silu"), dtype)


@pytest.mark.parametrize("rows", [1, 4, 40])
def test_a_residual_is_added_to_where_it_lies(gpu: torch.device, rows: int) -> None:
    """So that a step keeps no second copy of the hidden states; what is read elsewhere is the product's result."""
    weight, x = _random(0, torch.float32, 24, 32), _random(1, torch.float32, rows, 32)
    residual = _random(2, torch.float32, rows, 24)
    lying = residual.to(gpu).clone()
    product = linear.EXACT.weight(weight.to(gpu)).multiply(x.to(gpu), None, lying)
    assert product.data_ptr() == lying.data_ptr()
    _close(product, reference.linear(x, weight, None, residual), torch.float32)


@pytest.mark.parametrize("rows", [0, 1, 3, 20])
def test_no_rows_few_and_many_keep_their_shapes(gpu: torch.device, rows: int) -> None:
    x = torch.zeros(rows, 32, device=gpu)
    weight = _random(0, torch.float32, 24, 32).to(gpu)
    assert linear.EXACT.weight(weight).multiply(x, wide=True).shape == (rows, 24)
    assert linear.EXACT.gated(weight, has_bias=False).multiply(x).shape == (rows, 12)


@pytest.mark.parametrize("rows", [2, 16])
def test_rows_do_not_depend_on_one_another(gpu: torch.device, rows: int) -> None:
    """What another row holds, NaN even, changes no bit of a row, nor does how many others there are."""
    weight, x = _random(0, torch.bfloat16, 24, 64).to(gpu), _random(1, torch.bfloat16, rows, 64).to(gpu)
    prepared = linear.EXACT.weight(weight)
    product = prepared.multiply(x)
    assert torch.equal(prepared.multiply(x[:2].contiguous()), product[:2])
    x[0] = torch.nan
    assert torch.equal(prepared.multiply(x)[1:], product[1:])


@pytest.mark.parametrize("rows", [1, 4])
def test_what_does_not_fit_is_refused(gpu: torch.device, rows: int) -> None:
    weight = _random(0, torch.float32, 32, 16).to(gpu)
    prepared, gated = linear.EXACT.weight(weight), linear.EXACT.gated(weight, has_bias=False)
    for x in (torch.zeros(rows, 32), torch.zeros(rows, 16).half(), torch.zeros(16, 8).t()[:, :rows].t()):
        with pytest.raises(ValueError, match="is needed"):
            prepared.multiply(x.to(gpu))
        with pytest.raises(ValueError, match="is needed"):
            gated.multiply(x.to(gpu))
    with pytest.raises(ValueError, match="is needed"):
        prepared.multiply(torch.zeros(rows, 16, device=gpu), None, torch.zeros(rows, 16, device=gpu))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_int8_is_for_cpus() -> None:
    with pytest.raises(ValueError, match="CPU"):
        linear.INT8.weight(torch.zeros(32, 32, device="cuda"))
