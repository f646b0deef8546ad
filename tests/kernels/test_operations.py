"""The smaller operations: each CPU form against its reference, each reference against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import activation, kv_write, linear, rms_norm, rotary
from kernels.activation import reference as activation_reference
from kernels.kv_write import reference as kv_write_reference
from kernels.linear import reference as linear_reference
from kernels.linear.cpu import can_pack
from kernels.rms_norm import reference as rms_norm_reference
from kernels.rotary import reference as rotary_reference

DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
SEEDS = st.integers(0, 2**31)


def _random(seed: int, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 1e-5 if expected.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@settings(deadline=None)
@given(SEEDS, DTYPES, st.integers(1, 70), st.sampled_from([8, 64, 200]))
def test_rms_norm(seed: int, dtype: torch.dtype, tokens: int, hidden: int) -> None:
    x, weight = _random(seed, dtype, tokens, hidden), _random(seed + 1, dtype, hidden)
    _close(rms_norm.rms_norm(x, weight, 1e-5), rms_norm_reference.rms_norm(x, weight, 1e-5))


def test_rms_norm_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0]])
    expected = torch.tensor([[3.0, 8.0]]) / math.sqrt(12.5)
    torch.testing.assert_close(rms_norm_reference.rms_norm(x, torch.tensor([1.0, 2.0]), 0.0), expected)


@settings(deadline=None)
@given(SEEDS, DTYPES, st.integers(1, 40), st.integers(1, 6), st.sampled_from([2, 16, 64]))
def test_rotary(seed: int, dtype: torch.dtype, tokens: int, heads: int, head_dim: int) -> None:
    # The heads of a fused projection are a strided view, as in the decoder.
    x = _random(seed, dtype, tokens, heads + 2, head_dim)[:, :heads]
    angles = _random(seed + 1, torch.float32, tokens, head_dim // 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    _close(rotary.apply_rotary(x, cos, sin), rotary_reference.apply_rotary(x, cos, sin))


def test_rotary_is_a_rotation_by_the_angle() -> None:
    x = torch.tensor([[[1.0, 0.0, 0.0, 2.0]]])
    angles = torch.tensor([[math.pi / 2, math.pi]])
    expected = torch.tensor([[[0.0, 0.0, 1.0, -2.0]]])
    torch.testing.assert_close(rotary_reference.apply_rotary(x, angles.cos(), angles.sin()), expected)


@settings(deadline=None)
@given(SEEDS, DTYPES, st.integers(1, 70), st.sampled_from([1, 96, 300]))
def test_silu_and_mul(seed: int, dtype: torch.dtype, tokens: int, size: int) -> None:
    gate_up = _random(seed, dtype, tokens, 2 * size)
    before = gate_up.clone()
    _close(activation.silu_and_mul(gate_up), activation_reference.silu_and_mul(gate_up))
    assert torch.equal(gate_up, before)


def test_silu_and_mul_by_hand() -> None:
    expected = torch.tensor([[0.0, 3 * 2 / (1 + math.exp(-2))]])
    torch.testing.assert_close(activation_reference.silu_and_mul(torch.tensor([[0.0, 2.0, 5.0, 3.0]])), expected)


@settings(deadline=None)
@given(SEEDS, DTYPES, st.integers(1, 30))
def test_write_kv_touches_only_its_slots(seed: int, dtype: torch.dtype, tokens: int) -> None:
    slots = torch.randperm(50, generator=torch.Generator().manual_seed(seed))[:tokens]
    key, value = (_random(seed + i, dtype, tokens, 4, 8)[:, :2] for i in (1, 2))
    ours = torch.zeros(2, 50, 2, 8, dtype=dtype)
    theirs = ours.clone()
    kv_write.write_kv(ours[0], ours[1], slots, key, value)
    kv_write_reference.write_kv(theirs[0], theirs[1], slots, key, value)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours[0, slots[0]], key[0])
    assert ours.any(dim=-1).any(dim=-1).sum() == 2 * tokens


@settings(deadline=None)
@given(SEEDS, DTYPES, st.integers(1, 40), st.sampled_from([(8, 16), (64, 96), (33, 130)]), st.booleans())
def test_linear(seed: int, dtype: torch.dtype, tokens: int, shape: tuple[int, int], with_bias: bool) -> None:
    outputs, inputs = shape
    weight = _random(seed, dtype, outputs, inputs) / math.sqrt(inputs)
    bias = _random(seed + 1, dtype, outputs) if with_bias else None
    x = _random(seed + 2, dtype, tokens, inputs)
    prepared = linear.prepare_weight(weight.clone())
    _close(linear.linear(x, prepared, bias), linear_reference.linear(x, weight, bias))


def test_a_packed_weight_keeps_nothing_of_its_source() -> None:
    weight = _random(0, torch.float32, 16, 16)
    x = _random(1, torch.float32, 3, 16)
    prepared = linear.prepare_weight(weight)
    before = linear.linear(x, prepared, None)
    weight.fill_(torch.nan)
    assert isinstance(prepared, linear.PackedWeight) == can_pack(torch.float32)
    if isinstance(prepared, linear.PackedWeight):
        assert torch.equal(linear.linear(x, prepared, None), before)
        assert prepared.shape == (16, 16)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_dtypes_that_no_layout_helps_stay_plain(dtype: torch.dtype) -> None:
    assert not can_pack(dtype)
