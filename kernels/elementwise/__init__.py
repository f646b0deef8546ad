"""Sums on the residual stream, and clipping: what stands alone where no product or norm can do it on its way."""

from __future__ import annotations

from torch import Tensor

from kernels.elementwise import native, plain
from kernels.native.library import supports

__all__ = ["add", "clip"]


def add(x: Tensor, residual: Tensor | None, gate: Tensor | None = None) -> Tensor:
    """``residual + sigmoid(gate) * x``, computed in float32 and rounded once.

    :param x: ``[tokens, width]``, contiguous.
    :param residual: like ``x``; None: zeros.
    :param gate: ``[tokens, 1]``, contiguous, of the dtype of ``x``; None: ``x`` counts whole.
    :returns: like ``x``, in memory of its own.
    :raises ValueError: the operands do not fit one another.
    """
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(f"x is {x.dtype} {list(x.shape)} and the residual {residual.dtype} {list(residual.shape)}")
    if gate is not None and (gate.shape != (x.shape[0], 1) or gate.dtype != x.dtype):
        raise ValueError(f"the gate is {gate.dtype} {list(gate.shape)}; {x.dtype} [{x.shape[0]}, 1] is needed")
    if supports(x):
        return native.add(x, residual, gate)
    return plain.add(x, residual, gate)


def clip(x: Tensor, limit: float) -> Tensor:
    """``x``, in place, with what lies beyond ``±limit`` set to that; NaN stays.

    :param x: ``[tokens, width]``, contiguous.
    """
    if supports(x):
        return native.clip(x, limit)
    return plain.clip(x, limit)
