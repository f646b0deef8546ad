"""Gated activations by their formulas."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """See :func:`kernels.activation.silu_and_mul`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


def gelu_and_mul(gate_up: Tensor, approximate: str) -> Tensor:
    """See :func:`kernels.activation.gelu_and_mul`; in float32, rounded once."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    if approximate == "tanh":
        cumulative = 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    else:
        cumulative = 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    return (gate * cumulative * up).to(gate_up.dtype)
