"""Activations of the feed-forward block, plain and gated."""

from __future__ import annotations

from torch import Tensor

from kernels import gpu
from kernels.activation import cpu, native
from kernels.activation.kinds import GatedKind, Kind
from kernels.native.library import supports

__all__ = ["GatedKind", "Kind", "activate", "gated", "xielu"]


def gated(gate_up: Tensor, kind: GatedKind) -> Tensor:
    """``kind(gate) * up``, computed in float32 and rounded once.

    :param gate_up: ``[tokens, 2 * intermediate]``, contiguous, the gate's half first.
    :returns: ``[tokens, intermediate]``. Method: Shazeer 2020, arXiv 2002.05202.
    """
    if gpu.serves(gate_up):
        from kernels.activation import triton as form

        return form.gated(gate_up, kind)
    if supports(gate_up):
        return native.gated(gate_up, kind)
    return cpu.gated(gate_up, kind)


def activate(x: Tensor, kind: Kind) -> Tensor:
    """``kind(x)`` of each element, computed in float32 and rounded once.

    :param x: ``[tokens, width]``, contiguous.
    :returns: like ``x``.
    """
    if gpu.serves(x):
        from kernels.activation import triton as form

        return form.activate_rows(x, kind)
    if supports(x):
        return native.activate(x, kind)
    return cpu.activate(x, kind)


def xielu(x: Tensor, alpha_p: float, alpha_n: float, beta: float, epsilon: float) -> Tensor:
    """xIELU: ``alpha_p · x² + beta · x`` above zero, else ``alpha_n · (expm1(min(x, epsilon)) - x) + beta · x``.

    :param x: ``[tokens, width]``, contiguous.
    :param alpha_p: as it is used: ``softplus`` of the checkpoint's parameter.
    :param alpha_n: as it is used: ``beta + softplus`` of the checkpoint's parameter.
    :param epsilon: a small negative number.
    :returns: like ``x``. Method: Huang and Schlag 2024, arXiv 2411.13010.
    """
    if gpu.serves(x):
        from kernels.activation import triton as form

        return form.xielu(x, alpha_p, alpha_n, beta, epsilon)
    if supports(x):
        return native.xielu(x, alpha_p, alpha_n, beta, epsilon)
    return cpu.xielu(x, alpha_p, alpha_n, beta, epsilon)
