"""Linear layers as they are defined."""

from __future__ import annotations

from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias + residual``, accumulated in float32, in the dtype of ``x``; ``weight`` is the plain
    ``[out_features, in_features]`` tensor."""
    product = x.float() @ weight.float().T
    for term in (bias, residual):
        if term is not None:
            product += term.float()
    return product.to(x.dtype)


def int8_linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T`` in float32 after rounding both to 8 bits: each row of either to whole multiples of 1/127 of its
    largest value."""
    return _rounded(x.float()) @ _rounded(weight.float()).T


def _rounded(rows: Tensor) -> Tensor:
    scale = rows.abs().amax(dim=1, keepdim=True) / 127
    return (rows / scale).round().nan_to_num() * scale
