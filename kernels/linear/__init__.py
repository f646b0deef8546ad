"""Matrix products with a model's weights, kept in whatever layout the device multiplies fastest."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from kernels.linear import cpu
from kernels.linear.cpu import PackedWeight

__all__ = ["PackedWeight", "linear", "prepare_weight"]


def prepare_weight(weight: Tensor) -> Tensor | PackedWeight:
    """Put a weight in its final layout, once, at load.

    :param weight: ``[out_features, in_features]`` on its final device. The result does not share its memory if it
        was repacked, so the caller may drop it.
    """
    if weight.device.type == "cpu" and cpu.can_pack(weight.dtype):
        return PackedWeight.pack(weight)
    return weight


def linear(x: Tensor, weight: Tensor | PackedWeight, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``.

    :param x: ``[tokens, in_features]``, contiguous.
    :param weight: from :func:`prepare_weight`.
    :param bias: ``[out_features]`` or None.
    :returns: ``[tokens, out_features]``.
    """
    if isinstance(weight, PackedWeight):
        return weight.multiply(x, bias)
    return functional.linear(x, weight, bias)
