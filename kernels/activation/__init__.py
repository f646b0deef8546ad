"""Gated activations of the feed-forward block."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kernels import gpu
from kernels.activation import cpu, native
from kernels.native.library import supports

__all__ = ["gelu_and_mul", "silu_and_mul"]


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` (SwiGLU).

    :param gate_up: ``[tokens, 2 * intermediate]``, contiguous, the gate's half first.
    :returns: ``[tokens, intermediate]``. Method: Shazeer 2020, arXiv 2002.05202.
    """
    if gpu.serves(gate_up):
        from kernels.activation import triton as form

        return form.gated(gate_up, "silu")
    if supports(gate_up):
        return native.silu_and_mul(gate_up)
    return cpu.silu_and_mul(gate_up)


def gelu_and_mul(gate_up: Tensor, approximate: Literal["none", "tanh"]) -> Tensor:
    """``gelu(gate) * up`` (GeGLU).

    :param gate_up: ``[tokens, 2 * intermediate]``, contiguous, the gate's half first.
    :param approximate: as for :func:`torch.nn.functional.gelu`: ``x · Φ(x)`` by the error function or by a tanh.
    :returns: ``[tokens, intermediate]``. Method: Shazeer 2020, arXiv 2002.05202.
    """
    if gpu.serves(gate_up):
        from kernels.activation import triton as form

        return form.gated(gate_up, "gelu_tanh" if approximate == "tanh" else "gelu")
    return cpu.gelu_and_mul(gate_up, approximate)
