"""Weights on a GPU, as they are: read by a kernel of our own for the few rows of a decode step, else by cuBLAS."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels.activation import GatedKind, gated
from kernels.gpu import device_of, tile_shape

_DEPTHS = 16
"""What Triton must know to divide a row's length before it loads 128 bits at once."""


def most_few_rows(weight: Tensor) -> int:
    """Up to how many rows the Triton form multiplies.

    16, as many as it can, until it is measured beside cuBLAS: up to there both are bound by reading the weight. None
    where the rows of a weight are not made of whole 128-bit loads.
    """
    if weight.shape[1] % _DEPTHS:
        return 0
    return tile_shape("linear", "few_rows", "rows", device_of(weight))["rows"]


class DeviceWeight:
    """A weight ``[out_features, in_features]`` in the layout of a checkpoint."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.clone(memory_format=torch.contiguous_format)
        self.nbytes = self._weight.nbytes
        self._few_rows = most_few_rows(weight)

    def multiply(
        self, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, wide: bool = False
    ) -> Tensor:
        """See :class:`kernels.linear.Weight`."""
        if 0 < x.shape[0] <= self._few_rows:
            from kernels.linear import triton as form

            return form.linear(x, self._weight, bias, residual, out_dtype=torch.float32 if wide else x.dtype)
        if wide:
            return _sum_of(_wide_product(x, self._weight), bias, residual)
        if residual is None:
            return functional.linear(x, self._weight, bias)
        if bias is None:
            return residual.addmm_(x, self._weight.t())
        return residual.add_(functional.linear(x, self._weight, bias))


class DeviceGate:
    """A weight ``[2 * intermediate, in_features]``, the gate's half first, in the layout of a checkpoint."""

    def __init__(self, weight: Tensor, kind: GatedKind) -> None:
        self._weight = weight.clone(memory_format=torch.contiguous_format)
        self._kind = kind
        self.nbytes = self._weight.nbytes
        self._few_rows = most_few_rows(weight)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See :class:`kernels.linear.GatedWeight`."""
        if 0 < x.shape[0] <= self._few_rows:
            from kernels.linear import triton as form

            return form.gated(x, self._weight, bias, self._kind)
        return gated(functional.linear(x, self._weight, bias), self._kind)


def _wide_product(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T`` in float32, which cuBLAS writes straight from its sums; torch has no such product elsewhere."""
    if x.is_cuda and x.dtype != torch.float32:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    return functional.linear(x, weight).float()


def _sum_of(product: Tensor, *terms: Tensor | None) -> Tensor:
    for term in terms:
        if term is not None:
            product += term
    return product
