"""Layer normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import gpu
from kernels.layer_norm import cpu, native
from kernels.native.library import supports

__all__ = ["layer_norm"]


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, residual: Tensor | None = None
) -> Tensor:
    """``(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`` over the last dimension; the variance is divided
    by the number of elements. Computed in float32 and rounded once.

    :param x: ``[tokens, hidden]``, contiguous.
    :param weight: ``[hidden]``, of the dtype of ``x`` or float32; ones where a model has none.
    :param bias: like ``weight``, of its dtype; None: zeros.
    :param residual: like ``x``; ``residual + x``, which replaces it in place, is normalised instead of ``x``.
    :returns: like ``x``. Method: Ba, Kiros and Hinton 2016, arXiv 1607.06450.
    :raises ValueError: weight and bias are of other dtypes.
    """
    if weight.dtype not in {x.dtype, torch.float32} or (bias is not None and bias.dtype != weight.dtype):
        shift = "none" if bias is None else bias.dtype
        raise ValueError(f"x is {x.dtype}, weight {weight.dtype}, bias {shift}; both must be like x or float32")
    if gpu.serves(x):
        from kernels.layer_norm import triton as form

        return form.layer_norm(x, weight, bias, epsilon, residual)
    if supports(x):
        return native.layer_norm(x, weight, bias, epsilon, residual)
    return cpu.layer_norm(x if residual is None else residual.add_(x), weight, bias, epsilon)
