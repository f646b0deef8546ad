"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
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
    :raises ValueError: the weight is of another dtype.
    """
    if weight.dtype not in {x.dtype, torch.float32}:
        raise ValueError(f"x is {x.dtype} and the weight {weight.dtype}; it must be that or float32")
    if gpu.serves(x):
        from kernels.rms_norm import triton as form

        return form.rms_norm(x, weight, epsilon, residual)
    if supports(x):
        return native.rms_norm(x, weight, epsilon, residual)
    return cpu.rms_norm(x if residual is None else residual.add_(x), weight, epsilon)
