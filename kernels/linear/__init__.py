"""Matrix products with a model's weights, kept in whatever layout the device multiplies fastest."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import gpu
from kernels.activation import GatedKind
from kernels.linear import cpu, native
from kernels.linear.device import DeviceGate, DeviceWeight
from kernels.linear.experts import ExpertWeights, StackedExperts
from kernels.linear.gated import FusedGate, GatedWeight, SeparateGate
from kernels.linear.packed_experts import PackedExperts
from kernels.linear.plain import PlainWeight
from kernels.linear.weight import Weight
from kernels.moe import GatedActivation

__all__ = ["EXACT", "INT8", "Exact", "ExpertWeights", "GatedWeight", "Int8", "Layout", "PlainWeight", "Weight"]


class Exact:
    """Weights in the dtype they have."""

    def weight(self, weight: Tensor) -> Weight:
        """Put a weight in its final layout, once, at load.

        :param weight: ``[out_features, in_features]`` on its final device. The result shares no memory with it, so that
            the caller may drop or overwrite it.
        """
        if gpu.serves(weight):
            return DeviceWeight(weight)
        if native.can_pack(weight):
            return native.PackedWeight(weight)
        if weight.device.type == "cpu" and cpu.can_pack(weight.dtype):
            return cpu.PackedWeight(weight)
        return PlainWeight(weight.clone())

    def gated(self, weight: Tensor, *, has_bias: bool, kind: GatedKind = "silu") -> GatedWeight:
        """The same for the fused first half of a gated feed-forward block; see :class:`GatedWeight`."""
        if gpu.serves(weight):
            return DeviceGate(weight, kind)
        if native.can_pack(weight) and FusedGate.can_hold(weight) and not has_bias:
            return FusedGate(weight, native.PackedWeight, kind)
        return SeparateGate(self.weight(weight), kind)

    def experts(
        self,
        num_experts: int,
        hidden: int,
        intermediate: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        activation: GatedActivation,
        biases: bool,
    ) -> ExpertWeights:
        """Memory for the experts of a layer, which are then taken in one by one; see :class:`ExpertWeights`.

        :param biases: whether each expert has biases of its own.
        """
        like = torch.empty(0, hidden, dtype=dtype, device=device)
        if native.can_pack(like) and not gpu.serves(like):
            return PackedExperts(
                num_experts, hidden, intermediate, dtype, activation, native.PackedWeight, biases=biases
            )
        return StackedExperts(num_experts, hidden, intermediate, dtype, device, activation, biases=biases)


class Int8:
    """Weights rounded to int8, one scale per output column, for products with activations that are rounded as they
    come, one scale per token ("W8A8, dynamic"). About 1 % of a product's norm is lost. For CPUs."""

    def weight(self, weight: Tensor) -> Weight:
        """See :meth:`Exact.weight`.

        :raises ValueError: the weight is not on a CPU.
        """
        if weight.device.type != "cpu":
            raise ValueError("int8 weights are for CPUs")
        if native.can_pack_int8(weight):
            return native.Int8Weight(weight)
        return cpu.Int8Weight(weight)

    def gated(self, weight: Tensor, *, has_bias: bool, kind: GatedKind = "silu") -> GatedWeight:
        """See :meth:`Exact.gated`."""
        if native.can_pack_int8(weight) and FusedGate.can_hold(weight) and not has_bias:
            return FusedGate(weight, native.Int8Weight, kind)
        return SeparateGate(self.weight(weight), kind)

    def experts(
        self,
        num_experts: int,
        hidden: int,
        intermediate: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        activation: GatedActivation,
        biases: bool,
    ) -> ExpertWeights:
        """See :meth:`Exact.experts`.

        :raises ValueError: nothing multiplies such experts in int8 here.
        """
        if not native.can_pack_int8(torch.empty(0, hidden, dtype=dtype, device=device)):
            raise ValueError(
                f"no experts of {dtype} with {hidden} inputs in int8 here: that takes the compiled CPU kernels, "
                "float32 or bfloat16, and a multiple of 4"
            )
        return PackedExperts(num_experts, hidden, intermediate, dtype, activation, native.Int8Weight, biases=biases)


Layout = Exact | Int8
EXACT, INT8 = Exact(), Int8()
