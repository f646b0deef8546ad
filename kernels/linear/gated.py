"""The first half of a gated feed-forward block: a product with the weights of the gate and of what it scales, and both
joined."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from kernels.activation import GatedKind, gated
from kernels.activation.native import NUMBERS
from kernels.linear import native
from kernels.linear.weight import Weight
from kernels.native import library

_LANES = 16


class GatedWeight(Protocol):
    """A weight ``[2 * intermediate, in_features]``, the gate's half first, in its final layout."""

    nbytes: int

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``kind(gate) * up`` of ``x @ weight.T + bias``.

        :param x: ``[tokens, in_features]``, contiguous.
        :param bias: ``[2 * intermediate]`` or None.
        :returns: ``[tokens, intermediate]``.
        """


class SeparateGate:
    """A product, then the activation, in any layout."""

    def __init__(self, weight: Weight, kind: GatedKind) -> None:
        self._weight = weight
        self._kind = kind
        self.nbytes = weight.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See :class:`GatedWeight`."""
        return gated(self._weight.multiply(x, bias), self._kind)


class FusedGate:
    """The compiled product whose results do not leave the registers before the activation: saves 2 to 3 % of a prefill.

    Each panel of 32 columns holds 16 of the gate and the 16 of the other half that they multiply.
    """

    def __init__(
        self, weight: Tensor, layout: type[native.PackedWeight] | type[native.Int8Weight], kind: GatedKind
    ) -> None:
        columns, depth = weight.shape
        self._memory = layout.memory(columns, depth, weight.dtype)[0]
        layout.pack_gated(weight, self._memory)
        self.nbytes = self._memory.nbytes
        self._address = self._memory.data_ptr()
        self._shape = weight.shape
        self._multiply = library.function(f"gated{layout.kind}", weight.dtype)
        self._dtype = weight.dtype
        self._kind = NUMBERS[kind]

    @classmethod
    def can_hold(cls, weight: Tensor) -> bool:
        """Whether a weight divides into such panels."""
        return weight.shape[0] % (2 * _LANES) == 0

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """See :class:`GatedWeight`; a bias cannot be added before the activation any more, so there must be none."""
        if bias is not None:
            raise ValueError("a fused gate has no bias")
        columns, depth = self._shape
        native.check_input(x, depth, self._dtype)
        out = library.result((x.shape[0], columns // 2), self._dtype)
        self._multiply(x.data_ptr(), x.shape[0], depth, columns, self._address, self._kind, out.data_ptr())
        return out
