"""Activations by the compiled kernels: one pass, rounded once."""

from __future__ import annotations

from torch import Tensor

from kernels.activation.kinds import GatedKind, Kind
from kernels.native import library

NUMBERS: dict[Kind, int] = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "relu_squared": 4}
"""How the compiled kernels know them."""


def gated(gate_up: Tensor, kind: GatedKind) -> Tensor:
    """See :func:`kernels.activation.gated`."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = library.result((rows, width), gate_up.dtype)
    library.function("gate", gate_up.dtype)(gate_up.data_ptr(), rows, width, NUMBERS[kind], out.data_ptr())
    return out


def activate(x: Tensor, kind: Kind) -> Tensor:
    """See :func:`kernels.activation.activate`."""
    out = library.result(tuple(x.shape), x.dtype)
    library.function("activate", x.dtype)(x.data_ptr(), x.numel(), NUMBERS[kind], out.data_ptr())
    return out


def xielu(x: Tensor, alpha_p: float, alpha_n: float, beta: float, epsilon: float) -> Tensor:
    """See :func:`kernels.activation.xielu`."""
    out = library.result(tuple(x.shape), x.dtype)
    constants = (float(alpha_p), float(alpha_n), float(beta), float(epsilon))
    library.function("xielu", x.dtype)(x.data_ptr(), x.numel(), *constants, out.data_ptr())
    return out
