"""Gated activations of the feed-forward block."""

from __future__ import annotations

from torch import Tensor

from kernels.activation import cpu, native, reference
from kernels.native.library import supports

__all__ = ["silu_and_mul"]


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` (SwiGLU).

    :param gate_up: ``[tokens, 2 * intermediate]``, contiguous, the gate's half first.
    :returns: ``[tokens, intermediate]``. Method: Shazeer 2020, arXiv 2002.05202.
    """
    if supports(gate_up):
        return native.silu_and_mul(gate_up)
    if gate_up.device.type == "cpu":
        return cpu.silu_and_mul(gate_up)
    return reference.silu_and_mul(gate_up)
