"""Norms in all forms against their references: rows of any width, with and without a residual, between rows of NaN."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.layer_norm import layer_norm
from kernels.layer_norm import reference as layer_norm_reference
from kernels.native import library
from kernels.native.program import Arena, Program
from kernels.rms_norm import reference as rms_norm_reference
from kernels.rms_norm import rms_norm

DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
SWITCHES = st.tuples(*[st.booleans()] * 4)
WIDTHS = st.sampled_from([1, 8, 100, 256, 257, 576, 1024, 1500])


class Problem:
    """Random rows, weight and bias; ``x`` and ``residual`` are the middle of tensors that hold NaN elsewhere."""

    def __init__(
        self, seed: int, dtype: torch.dtype, tokens: int, hidden: int, offset: float = 0.0, *, wide: bool = False
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x, self.residual = (
            (torch.randn(tokens, hidden, generator=generator) + offset).to(dtype) for _ in range(2)
        )
        kept = torch.float32 if wide else dtype
        self.weight, self.bias = (torch.randn(hidden, generator=generator).to(kept) for _ in range(2))

    def guarded(self, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
        """A copy of ``rows`` on the device, with 4 rows of NaN before and after."""
        around = torch.full((rows.shape[0] + 8, rows.shape[1]), torch.nan, dtype=rows.dtype, device=device)
        around[4:-4] = rows
        return around


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[expected.dtype]
    torch.testing.assert_close(actual.cpu(), expected, atol=tolerance, rtol=tolerance)


def _check(problem: Problem, device: torch.device, *, centred: bool, bias: bool, residual: bool) -> None:
    x, stream = problem.guarded(problem.x, device), problem.guarded(problem.residual, device)
    weight, shift = problem.weight.to(device), problem.bias.to(device) if bias else None
    ours = stream[4:-4] if residual else None
    theirs = problem.residual.clone() if residual else None
    if centred:
        actual = layer_norm(x[4:-4], weight, shift, 1e-5, ours)
        expected = layer_norm_reference.layer_norm(
            problem.x, problem.weight, problem.bias if bias else None, 1e-5, theirs
        )
    else:
        actual = rms_norm(x[4:-4], weight, 1e-5, ours)
        expected = rms_norm_reference.rms_norm(problem.x, problem.weight, 1e-5, theirs)
    _close(actual, expected)
    assert torch.equal(x[4:-4].cpu(), problem.x)
    if theirs is None:
        assert torch.equal(stream[4:-4].cpu(), problem.residual)
    else:
        _close(stream[4:-4], theirs)
    assert stream[:4].isnan().all()
    assert stream[-4:].isnan().all()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    dtype=DTYPES,
    tokens=st.integers(1, 20),
    hidden=WIDTHS,
    switches=SWITCHES,
)
def test_on_a_gpu(
    *, gpu: torch.device, seed: int, dtype: torch.dtype, tokens: int, hidden: int, switches: tuple[bool, ...]
) -> None:
    centred, bias, residual, wide = switches
    _check(Problem(seed, dtype, tokens, hidden, wide=wide), gpu, centred=centred, bias=bias, residual=residual)


@pytest.mark.parametrize("hidden", [4096, 5120, 16384])
@pytest.mark.parametrize("centred", [False, True], ids=["rms", "layer"])
def test_wide_rows(gpu: torch.device, *, hidden: int, centred: bool) -> None:
    _check(Problem(0, torch.bfloat16, 3, hidden), gpu, centred=centred, bias=centred, residual=True)


def test_a_row_far_from_zero_keeps_its_variance(gpu: torch.device) -> None:
    """Mean 1,000, deviation 1: in float32 the mean square less the squared mean is off by several per cent."""
    problem = Problem(0, torch.float32, 4, 300, offset=1000.0)
    actual = layer_norm(problem.x.to(gpu), problem.weight.to(gpu), None, 1e-5)
    wide = problem.x.double()
    expected = (wide - wide.mean(1, keepdim=True)) / wide.var(1, correction=0, keepdim=True).add(1e-5).sqrt()
    torch.testing.assert_close(actual.cpu(), (expected * problem.weight).float(), atol=1e-3, rtol=1e-3)


def test_no_rows(gpu: torch.device) -> None:
    nothing, weight = torch.empty(0, 64, device=gpu), torch.ones(64, device=gpu)
    assert rms_norm(nothing, weight, 1e-5).shape == (0, 64)
    assert layer_norm(nothing, weight, None, 1e-5).shape == (0, 64)


def test_layer_norm_by_hand() -> None:
    """Mean 2, variance 1."""
    x, weight, bias = torch.tensor([[1.0, 3.0]]), torch.tensor([2.0, 4.0]), torch.tensor([0.5, 0.25])
    expected = torch.tensor([[-1.5, 4.25]])
    torch.testing.assert_close(layer_norm_reference.layer_norm(x, weight, bias, 0.0), expected)


@pytest.mark.parametrize("compiled", [True, False], ids=["chosen", "plain torch"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31),
    dtype=DTYPES,
    tokens=st.integers(1, 70),
    hidden=WIDTHS,
    switches=SWITCHES,
)
def test_on_a_cpu(
    *,
    monkeypatch: pytest.MonkeyPatch,
    compiled: bool,
    seed: int,
    dtype: torch.dtype,
    tokens: int,
    hidden: int,
    switches: tuple[bool, ...],
) -> None:
    """The sum replaces the residual there too."""
    centred, bias, residual, wide = switches
    problem = Problem(seed, dtype, tokens, hidden, wide=wide)
    with monkeypatch.context() as patch:
        if not compiled:
            patch.setattr(library, "load", lambda: None)
        _check(problem, torch.device("cpu"), centred=centred, bias=bias, residual=residual)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("centred", [False, True], ids=["rms", "layer"])
def test_a_float32_weight_is_not_rounded_and_the_product_once(
    request: pytest.FixtureRequest, *, device: str, centred: bool
) -> None:
    """Gemma's ``1 + w``: in bfloat16, 1.003 would be 1. The row is its own normal form, so each element is exact.
    Triton's interpreter does not round to bfloat16 but cuts off, so float16 stands in for it."""
    where = torch.device("cpu") if device == "cpu" else request.getfixturevalue("gpu")
    dtype = torch.bfloat16 if device == "cpu" else torch.float16
    x = torch.tensor([[3.0, -3.0] * 32], dtype=dtype, device=where)
    weight = 1 + torch.arange(64, device=where) / 3000
    norm = layer_norm(x, weight, None, 1e-30) if centred else rms_norm(x, weight, 1e-30)
    assert torch.equal(norm, (x.sign() * weight).to(dtype))


@pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
@pytest.mark.parametrize("centred", [False, True], ids=["rms", "layer"])
def test_a_recorded_norm_adds_to_the_residual_at_each_replay(*, centred: bool) -> None:
    problem = Problem(0, torch.bfloat16, 3, 48, wide=True)
    ours, theirs = problem.residual.clone(), problem.residual.clone()

    def norm(stream: torch.Tensor) -> torch.Tensor:
        if centred:
            return layer_norm(problem.x, problem.weight, problem.bias, 1e-5, stream)
        return rms_norm(problem.x, problem.weight, 1e-5, stream)

    program = Program(lambda: norm(ours), Arena(1 << 12))
    norm(theirs)
    for _ in range(3):
        expected = norm(theirs)
        assert torch.equal(program.replay(), expected)
        assert torch.equal(ours, theirs)


def test_rms_norm_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0]])
    expected = torch.tensor([[3.0, 8.0]]) / math.sqrt(12.5)
    torch.testing.assert_close(rms_norm_reference.rms_norm(x, torch.tensor([1.0, 2.0]), 0.0), expected)


def test_weights_of_a_third_dtype_are_refused() -> None:
    x, weight = torch.zeros(2, 8), torch.ones(8)
    with pytest.raises(ValueError, match=r"float32 and the weight torch\.bfloat16"):
        rms_norm(x, weight.bfloat16(), 1e-5)
    with pytest.raises(ValueError, match="float16"):
        layer_norm(x.bfloat16(), weight.half(), None, 1e-5)
    with pytest.raises(ValueError, match="bias torch"):
        layer_norm(x.bfloat16(), weight, weight.bfloat16(), 1e-5)
