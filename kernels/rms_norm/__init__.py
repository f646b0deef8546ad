"""Root-mean-square normalisation."""

from __future__ import annotations

from torch import Tensor

from kernels import gpu
from kernels.native.library import supports
from kernels.rms_norm import cpu, native

__all__ = ["rms_norm"]


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, residual: Tensor | None = None) -> Tensor:
    """``x / sqrt(mean(x²) + epsilon) * weight`` over the last dimension, computed in float32 and rounded once.

    :param x: ``[tokens, hidden]``, contiguous.
    :param weight: ``[hidden]``, of the dtype of ``x`` or float32, which keeps sums such as Gemma's ``1 + w`` exact.
    :param residual: like ``x``; ``residual + x``, which replaces it in place, is normalised instead of ``x``.
    :returns: like ``x``. Method: Zhang and Sennrich 2019, arXiv 1910.07467.
    """
    if gpu.serves(x):
        from kernels.rms_norm import triton as form

        return form.rms_norm(x, weight, epsilon, residual)
    if residual is not None:
        x = residual.add_(x)
    if supports(x) and weight.dtype == x.dtype:
        return native.rms_norm(x, weight, epsilon)
    return cpu.rms_norm(x, weight, epsilon)
