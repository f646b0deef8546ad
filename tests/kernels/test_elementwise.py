"""Sums on the residual stream and clipping, against their definitions in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.elementwise import add, clip
from kernels.native import library
from kernels.native.program import Arena, Program

#: A rounding to the dtype, and a half more for what float32 lost on the way.
PRECISION = {torch.float32: 2e-7, torch.float16: 7.5e-4, torch.bfloat16: 6e-3}
FORMS = pytest.mark.parametrize("form", ["chosen", "plain torch"])
CASES = {
    "seed": st.integers(0, 2**31),
    "dtype": st.sampled_from(list(PRECISION)),
    "tokens": st.integers(0, 40),
    "width": st.sampled_from([1, 16, 100, 1030]),
}
sampled = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _random(seed: int, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


@pytest.fixture
def chosen(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "plain torch":
        monkeypatch.setattr(library, "load", lambda: None)


@FORMS
@pytest.mark.usefixtures("chosen")
@sampled
@given(**CASES, terms=st.tuples(st.booleans(), st.booleans()))
def test_add(*, form: str, seed: int, dtype: torch.dtype, tokens: int, width: int, terms: tuple[bool, bool]) -> None:
    x, residual, gate = (_random(seed + i, dtype, tokens, size) for i, size in enumerate((width, width, 1)))
    before = x.clone(), residual.clone()
    out = add(x, residual if terms[0] else None, gate if terms[1] else None)
    expected = x.double() * (torch.sigmoid(gate.double()) if terms[1] else 1)
    size = expected.abs()
    if terms[0]:
        expected, size = expected + residual, size + residual.abs()
    assert out.dtype == dtype
    assert ((out.double() - expected).abs() <= PRECISION[dtype] * size + 1e-7).all()
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])
    out.fill_(0)
    assert torch.equal(x, before[0])


@FORMS
@pytest.mark.usefixtures("chosen")
@sampled
@given(**CASES)
def test_clip(*, form: str, seed: int, dtype: torch.dtype, tokens: int, width: int) -> None:
    x = _random(seed, dtype, tokens, width)
    expected = x.clone().clamp(-2.5, 2.5)
    assert clip(x, 2.5) is x
    assert torch.equal(x, expected)


@FORMS
@pytest.mark.usefixtures("chosen")
def test_what_is_no_number_stays_and_what_is_infinite_is_clipped(form: str) -> None:
    x = torch.tensor([[math.nan, math.inf, -math.inf, 1.0]])
    assert torch.equal(clip(x, 8).nan_to_num(-1), torch.tensor([[-1.0, 8.0, -8.0, 1.0]]))


@pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
def test_both_can_be_recorded() -> None:
    x, residual, gate = (_random(index, torch.bfloat16, 3, size) for index, size in enumerate((64, 64, 1)))
    program = Program(lambda: clip(add(x, residual, gate), 1.5), Arena(1 << 12))
    for seed in (10, 11):
        x.copy_(_random(seed, torch.bfloat16, 3, 64))
        gate.copy_(_random(seed, torch.bfloat16, 3, 1))
        assert torch.equal(program.replay(), clip(add(x, residual, gate), 1.5))


def test_what_does_not_fit_is_refused() -> None:
    x = torch.zeros(3, 8)
    with pytest.raises(ValueError, match=r"residual torch\.float32 \[2, 8\]"):
        add(x, x[:2])
    with pytest.raises(ValueError, match=r"\[3, 1\] is needed"):
        add(x, x, torch.zeros(3))
    with pytest.raises(ValueError, match="bfloat16"):
        add(x, None, torch.zeros(3, 1, dtype=torch.bfloat16))
