"""Matrix products with a model's weights, kept in whatever layout the device multiplies fastest."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional

from kernels.linear import cpu, native

__all__ = ["PlainWeight", "Weight", "prepare_int8_weight", "prepare_weight"]


class Weight(Protocol):
    """A weight ``[out_features, in_features]`` in its final layout, which takes ``nbytes`` of memory."""

    nbytes: int

    def multiply(
        self, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, wide: bool = False
    ) -> Tensor:
        """``x @ weight.T + bias + residual``.

        :param x: ``[tokens, in_features]``, contiguous, of the dtype that the weight was prepared from.
        :param bias: ``[out_features]`` or None.
        :param residual: ``[tokens, out_features]``, contiguous, or None.
        :param wide: return float32, whatever the dtype of ``x``.
        :returns: ``[tokens, out_features]``.
        """


class PlainWeight:
    """The tensor itself, multiplied by torch."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self.nbytes = weight.nbytes

    def multiply(
        self, x: Tensor, bias: Tensor | None = None, residual: Tensor | None = None, *, wide: bool = False
    ) -> Tensor:
        """See :class:`Weight`."""
        product = functional.linear(x, self._weight, bias)
        if residual is not None:
            product = product + residual
        return product.float() if wide else product


def prepare_weight(weight: Tensor) -> Weight:
    """Put a weight in its final layout, once, at load.

    :param weight: ``[out_features, in_features]`` on its final device. The result shares no memory with it, so that the
        caller may drop or overwrite it.
    """
    if native.can_pack(weight):
        return native.PackedWeight(weight)
    if weight.device.type == "cpu" and cpu.can_pack(weight.dtype):
        return cpu.PackedWeight(weight)
    return PlainWeight(weight.clone())


def prepare_int8_weight(weight: Tensor) -> Weight:
    """Quantize a weight to int8, one scale per output column, for products with activations that are quantized as they
    come, one scale per token ("W8A8, dynamic"). About 1 % of a product's norm is lost.

    :param weight: as for :func:`prepare_weight`, on a CPU.
    """
    if weight.device.type != "cpu":
        raise ValueError("int8 weights are for CPUs")
    if native.can_pack_int8(weight):
        return native.Int8Weight(weight)
    return cpu.Int8Weight(weight)
