"""Weights as they are."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


class PlainWeight:
    """The tensor itself, multiplied by torch."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self.nbytes = weight.nbytes

    def multiply(
        self, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, wide: bool = False
    ) -> Tensor:
        """See :class:`kernels.linear.weight.Weight`."""
        product = functional.linear(x, self._weight, bias)
        if residual is not None:
            product = product + residual
        return product.float() if wide else product
