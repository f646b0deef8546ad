"""Activations: each form against its reference, the references against Transformers' activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.activations import ACT2FN, XIELUActivation

from kernels import activation
from kernels.activation import GatedKind, Kind, cpu, reference
from kernels.native import library
from kernels.native.program import Arena, Program

Operation = Callable[[torch.Tensor], torch.Tensor]
XIELU = (0.7, 0.9, 0.5, -1e-6)


def _operations(form: object) -> dict[str, Operation]:
    """All that a module computes, by name."""
    gated = {f"gated {kind}": lambda x, kind=kind: form.gated(x, kind) for kind in get_args(GatedKind)}
    plain = {kind: lambda x, kind=kind: form.activate(x, kind) for kind in get_args(Kind)}
    return {**gated, **plain, "xielu": lambda x: form.xielu(x, *XIELU)}


FORMS = {"chosen": _operations(activation), "plain torch": _operations(cpu)}
EXPECTED = _operations(reference)
GATES = [f"gated {kind}" for kind in get_args(GatedKind)]
ROWS = {
    "seed": st.integers(0, 2**31),
    "dtype": st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    "width": st.sampled_from([1, 96, 300, 2048, 2049, 5000]),
}


def _random(seed: int, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[expected.dtype]
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(actual.cpu(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", EXPECTED)
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**ROWS, tokens=st.integers(0, 9))
def test_on_a_gpu(*, gpu: torch.device, name: str, seed: int, dtype: torch.dtype, tokens: int, width: int) -> None:
    x = _random(seed, dtype, tokens, 2 * width)
    on_device = x.to(gpu, copy=True)
    _close(FORMS["chosen"][name](on_device), EXPECTED[name](x))
    assert torch.equal(on_device.cpu(), x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", EXPECTED)
@settings(deadline=None, max_examples=12)
@given(**ROWS, tokens=st.integers(0, 70))
def test_on_a_cpu(*, form: str, name: str, seed: int, dtype: torch.dtype, tokens: int, width: int) -> None:
    x = _random(seed, dtype, tokens, 2 * width)
    before = x.clone()
    _close(FORMS[form][name](x), EXPECTED[name](x))
    assert torch.equal(x, before)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("name", GATES)
def test_far_from_zero_the_gate_is_open_or_shut(request: pytest.FixtureRequest, name: str, device: str) -> None:
    where = torch.device("cpu") if device == "cpu" else request.getfixturevalue("gpu")
    gate_up = torch.tensor([[-1e4, -200.0, 0.0, 200.0, 1e4, *[2.0] * 5]], device=where)
    expected = torch.tensor([[0.0, 0.0, 0.0, 400.0, 2e4]])
    torch.testing.assert_close(FORMS["chosen"][name](gate_up).cpu(), expected)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_xielu_near_zero_keeps_its_slope(request: pytest.FixtureRequest, device: str) -> None:
    """To some units of float32 of its terms, around the places where a form changes from one formula to another."""
    where = torch.device("cpu") if device == "cpu" else request.getfixturevalue("gpu")
    size = torch.logspace(-9, 1.5, 400)
    x = torch.cat((-size, size, -torch.linspace(0.2, 0.6, 41)))[None]
    wide = x.double()
    expected = torch.where(wide > 0, 0.7 * wide**2, 0.9 * (wide.clamp_max(-1e-6).expm1() - wide)) + 0.5 * wide
    error = activation.xielu(x.to(where), *XIELU).cpu().double() - expected
    assert (error.abs() <= 4e-7 * (wide.abs() + wide**2) + 1e-12).all()


@pytest.mark.skipif(not library.processor_suffices(), reason="needs a processor with AVX512-BF16")
@pytest.mark.parametrize("name", EXPECTED)
def test_all_can_be_recorded(name: str) -> None:
    x = _random(0, torch.bfloat16, 2, 64)
    program = Program(lambda: FORMS["chosen"][name](x), Arena(1 << 12))
    x.copy_(_random(1, torch.bfloat16, 2, 64))
    assert torch.equal(program.replay(), FORMS["chosen"][name](x))


#: What configurations call them: some names are of one formula.
NAMES: dict[str, Kind] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
}


@pytest.mark.parametrize("name", NAMES)
def test_references_are_what_transformers_computes(name: str) -> None:
    x, up = torch.linspace(-12, 12, 4001)[None], _random(0, torch.float32, 1, 4001)
    expected = ACT2FN[name](x)
    torch.testing.assert_close(reference.activate(x, NAMES[name]), expected, rtol=1e-5, atol=2e-6)
    if NAMES[name] in get_args(GatedKind):
        joined = reference.gated(torch.cat((x, up), dim=1), NAMES[name])
        torch.testing.assert_close(joined, expected * up, rtol=1e-5, atol=1e-5)


def test_xielu_is_what_transformers_computes() -> None:
    theirs = XIELUActivation(dtype=torch.float32)
    theirs.alpha_p.data.fill_(0.3)
    theirs.alpha_n.data.fill_(-0.4)
    alpha_p, softened = (math.log1p(math.exp(value)) for value in (0.3, -0.4))
    x = torch.linspace(-5, 5, 1001)[None]
    ours = reference.xielu(x, alpha_p, 0.5 + softened, 0.5, -1e-6)
    torch.testing.assert_close(ours, theirs(x).detach(), rtol=1e-5, atol=1e-6)
