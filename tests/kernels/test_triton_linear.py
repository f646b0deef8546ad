"""Products on a GPU: the Triton form of few rows and the library's of many, each against the definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import linear
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
    shape=st.sampled_from([(70, 96), (33, 130), (64, 512), (1, 7), (5, 1100)]),
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
