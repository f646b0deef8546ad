"""Layer normalisation."""

from __future__ import annotations

from torch import Tensor

from kernels import gpu
from kernels.layer_norm import cpu

__all__ = ["layer_norm"]


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float, residual: Tensor | None = None
) -> Tensor:
    """``(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`` over the last dimension; the variance is divided
    by the number of elements. Computed in float32 and rounded once.

    :param x: ``[tokens, hidden]``, contiguous.
    :param weight: ``[hidden]``, of the dtype of ``x`` or float32; ones where a model has none.
    :param bias: like ``weight``; None: zeros.
    :param residual: like ``x``; ``residual + x``, which replaces it in place, is normalised instead of ``x``.
    :returns: like ``x``. Method: Ba, Kiros and Hinton 2016, arXiv 1607.06450.
    """
    if gpu.serves(x):
        from kernels.layer_norm import triton as form

        return form.layer_norm(x, weight, bias, epsilon, residual)
    if residual is not None:
        x = residual.add_(x)
    return cpu.layer_norm(x, weight, bias, epsilon)
