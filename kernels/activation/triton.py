"""Activations on a GPU, in one pass.

A gated one takes ``[tokens, 2 · n]`` to ``[tokens, n]``: 3 · tokens · n elements moved and at most 30 operations for
each of the result's, so the floor is the bytes': 8,192 tokens of 14,336 in bfloat16 are 705 MB. A plain one moves
2 · tokens · n: 470 MB.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.activation.kinds import GatedKind, Kind
from kernels.gpu import device_of, tile_shape


def gated(gate_up: Tensor, kind: GatedKind) -> Tensor:
    """See :func:`kernels.activation.gated`."""
    tokens, width = gate_up.shape
    output = torch.empty((tokens, width // 2), dtype=gate_up.dtype, device=gate_up.device)
    if not output.numel():
        return output
    tile = tile_shape("activation", "gated", kind, device_of(gate_up))
    _gated[(tokens, triton.cdiv(width // 2, tile["block"]))](
        gate_up,
        output,
        KIND=kind,
        WIDTH=width // 2,
        BLOCK=tile["block"],
        num_warps=tile["num_warps"],
        num_stages=tile["num_stages"],
    )
    return output


def activate_rows(x: Tensor, kind: Kind) -> Tensor:
    """See :func:`kernels.activation.activate`."""
    output = torch.empty_like(x)
    if x.numel():
        tile = tile_shape("activation", "plain", kind, device_of(x))
        _plain[(triton.cdiv(x.numel(), tile["block"]),)](
            x,
            output,
            x.numel(),
            KIND=kind,
            BLOCK=tile["block"],
            num_warps=tile["num_warps"],
            num_stages=tile["num_stages"],
        )
    return output


def xielu(x: Tensor, alpha_p: float, alpha_n: float, beta: float, epsilon: float) -> Tensor:
    """See :func:`kernels.activation.xielu`."""
    output = torch.empty_like(x)
    if x.numel():
        tile = tile_shape("activation", "plain", "xielu", device_of(x))
        _xielu[(triton.cdiv(x.numel(), tile["block"]),)](
            x,
            output,
            x.numel(),
            alpha_p,
            alpha_n,
            beta,
            epsilon,
            BLOCK=tile["block"],
            num_warps=tile["num_warps"],
            num_stages=tile["num_stages"],
        )
    return output


@triton.jit  # type: ignore[untyped-decorator]
def _plain(x: tl.tensor, output: tl.tensor, count: tl.tensor, KIND: tl.constexpr, BLOCK: tl.constexpr) -> None:
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    value = tl.load(x + place, mask=mask).to(tl.float32)
    tl.store(output + place, activate(value, KIND).to(output.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _xielu(
    x: tl.tensor,
    output: tl.tensor,
    count: tl.tensor,
    alpha_p: tl.tensor,
    alpha_n: tl.tensor,
    beta: tl.tensor,
    epsilon: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    value = tl.load(x + place, mask=mask).to(tl.float32)
    low = tl.minimum(value, epsilon)
    # exp(low) - 1 - low: near zero by its series, where the difference would be lost to rounding.
    tail = 1.0 / 24 + low * (1.0 / 120 + low * (1.0 / 720 + low * (1.0 / 5040)))
    series = low * low * (0.5 + low * (1.0 / 6 + low * tail))
    excess = tl.where(low > -0.5, series, tl.exp(low) - 1 - low) + (low - value)
    result = tl.where(value > 0, alpha_p * value * value, alpha_n * excess) + beta * value
    tl.store(output + place, result.to(output.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _gated(gate_up: tl.tensor, output: tl.tensor, KIND: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr) -> None:
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < WIDTH
    row = gate_up + token * 2 * WIDTH + columns
    gate = tl.load(row, mask=mask).to(tl.float32)
    up = tl.load(row + WIDTH, mask=mask).to(tl.float32)
    result = activate(gate, KIND) * up
    tl.store(output + token * WIDTH + columns, result.to(output.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def activate(x: tl.tensor, KIND: tl.constexpr) -> tl.tensor:
    """Any :data:`kernels.activation.Kind` of float32."""
    if KIND == "relu":
        return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif KIND == "relu_squared":
        positive = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
        return positive * positive
    else:
        return x * share(x, KIND)


@triton.jit  # type: ignore[untyped-decorator]
def share(x: tl.tensor, KIND: tl.constexpr) -> tl.tensor:
    """How much of ``x`` passes a gate, float32: ``KIND(x) / x``."""
    if KIND == "silu":
        return tl.sigmoid(x)
    elif KIND == "gelu_tanh":
        # (1 + tanh u) / 2 is sigmoid(2 u), which needs one exponential and is exact at both ends.
        return tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    elif KIND == "relu":
        return tl.where(x > 0, 1.0, 0.0)
    else:
        tl.static_assert(KIND == "gelu")
        return 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)
