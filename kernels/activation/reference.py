"""Activations by their formulas, in float32, rounded once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.activation.kinds import GatedKind, Kind


def gated(gate_up: Tensor, kind: GatedKind) -> Tensor:
    """See :func:`kernels.activation.gated`."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (activate(gate, kind) * up).to(gate_up.dtype)


def activate(x: Tensor, kind: Kind) -> Tensor:
    """See :func:`kernels.activation.activate`."""
    wide = x.float()
    if kind == "relu_squared":
        return torch.where(wide > 0, wide * wide, 0.0).to(x.dtype)
    return (wide * share(wide, kind)).to(x.dtype)


def share(x: Tensor, kind: GatedKind) -> Tensor:
    """How much of ``x`` passes a gate: ``kind(x) / x``."""
    if kind == "silu":
        return torch.sigmoid(x)
    if kind == "gelu":
        return 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    if kind == "gelu_tanh":
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return (x > 0).to(x.dtype)


def xielu(x: Tensor, alpha_p: float, alpha_n: float, beta: float, epsilon: float) -> Tensor:
    """See :func:`kernels.activation.xielu`."""
    wide = x.double()
    below = (torch.expm1(torch.minimum(wide, torch.tensor(epsilon, dtype=wide.dtype))) - wide) * alpha_n + beta * wide
    return torch.where(wide > 0, alpha_p * wide * wide + beta * wide, below).to(x.dtype)
