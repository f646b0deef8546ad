"""Gated activations on a GPU against their references, and the references against torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from kernels.activation import gelu_and_mul, reference, silu_and_mul

ACTIVATIONS = {
    "silu": (silu_and_mul, reference.silu_and_mul),
    "gelu": (lambda x: gelu_and_mul(x, "none"), lambda x: reference.gelu_and_mul(x, "none")),
    "gelu_tanh": (lambda x: gelu_and_mul(x, "tanh"), lambda x: reference.gelu_and_mul(x, "tanh")),
}


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[expected.dtype]
    torch.testing.assert_close(actual.cpu(), expected, atol=tolerance, rtol=tolerance)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    activation=st.sampled_from(list(ACTIVATIONS)),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    tokens=st.integers(0, 9),
    width=st.sampled_from([1, 96, 300, 2048, 2049, 5000]),
)
def test_random_rows(
    *, gpu: torch.device, activation: str, seed: int, dtype: torch.dtype, tokens: int, width: int
) -> None:
    ours, theirs = ACTIVATIONS[activation]
    gate_up = (3 * torch.randn(tokens, 2 * width, generator=torch.Generator().manual_seed(seed))).to(dtype)
    on_device = gate_up.to(gpu, copy=True)
    actual = ours(on_device)
    assert actual.shape == (tokens, width)
    _close(actual, theirs(gate_up))
    assert torch.equal(on_device.cpu(), gate_up)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_far_from_zero_the_gate_is_open_or_shut(gpu: torch.device, activation: str) -> None:
    gate_up = torch.tensor([[-1e4, -200.0, 0.0, 200.0, 1e4, *[2.0] * 5]], device=gpu)
    expected = torch.tensor([[0.0, 0.0, 0.0, 400.0, 2e4]])
    torch.testing.assert_close(ACTIVATIONS[activation][0](gate_up).cpu(), expected)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("form", [gelu_and_mul, reference.gelu_and_mul], ids=["cpu", "reference"])
def test_gelu_is_torchs(form: Callable[[torch.Tensor, str], torch.Tensor], approximate: str) -> None:
    gate, up = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    expected = functional.gelu(gate, approximate=approximate) * up
    torch.testing.assert_close(form(torch.cat((gate, up), dim=1), approximate), expected)
