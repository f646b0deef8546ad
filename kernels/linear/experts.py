"""The weights of a mixture's experts, taken in one expert at a time, each at once in its final layout."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from kernels.moe import GatedActivation, Routing, experts_forward


class ExpertWeights(Protocol):
    """The experts of one layer. ``nbytes`` is what they take."""

    nbytes: int

    def set_gate_up(self, index: int, weight: Tensor, bias: Tensor | None = None) -> None:
        """Take in the first half of an expert; nothing of what is given is kept.

        :param weight: ``[2 * intermediate, hidden]``, the gate's half first, on the device of the layer or on a CPU.
        :param bias: ``[2 * intermediate]``; None where the layer has none.
        :raises ValueError: there is no such expert, or this does not fit it.
        """

    def set_down(self, index: int, weight: Tensor, bias: Tensor | None = None) -> None:
        """Take in the second half: ``[hidden, intermediate]`` and ``[hidden]``; see :meth:`set_gate_up`."""

    def forward(self, x: Tensor, routing: Routing, residual: Tensor | None = None) -> Tensor:
        """See :func:`kernels.moe.experts_forward`."""


class StackedExperts:
    """All experts in two tensors, in the layout of :func:`kernels.moe.experts_forward`."""

    def __init__(
        self,
        num_experts: int,
        hidden: int,
        intermediate: int,
        dtype: torch.dtype,
        device: torch.device,
        activation: GatedActivation,
        *,
        biases: bool,
    ) -> None:
        self._gate_up = torch.empty(num_experts, 2 * intermediate, hidden, dtype=dtype, device=device)
        self._down = torch.empty(num_experts, hidden, intermediate, dtype=dtype, device=device)
        self._gate_up_bias = self._gate_up.new_empty(num_experts, 2 * intermediate) if biases else None
        self._down_bias = self._gate_up.new_empty(num_experts, hidden) if biases else None
        self._activation = activation
        parts = (self._gate_up, self._down, self._gate_up_bias, self._down_bias)
        self.nbytes = sum(part.nbytes for part in parts if part is not None)

    def set_gate_up(self, index: int, weight: Tensor, bias: Tensor | None = None) -> None:
        """See :class:`ExpertWeights`."""
        check_expert(index, self._gate_up.shape, weight, bias, biased=self._gate_up_bias is not None)
        self._gate_up[index].copy_(weight)
        if self._gate_up_bias is not None and bias is not None:
            self._gate_up_bias[index].copy_(bias)

    def set_down(self, index: int, weight: Tensor, bias: Tensor | None = None) -> None:
        """See :class:`ExpertWeights`."""
        check_expert(index, self._down.shape, weight, bias, biased=self._down_bias is not None)
        self._down[index].copy_(weight)
        if self._down_bias is not None and bias is not None:
            self._down_bias[index].copy_(bias)

    def forward(self, x: Tensor, routing: Routing, residual: Tensor | None = None) -> Tensor:
        """See :class:`ExpertWeights`."""
        return experts_forward(
            x,
            self._gate_up,
            self._down,
            routing,
            self._activation,
            gate_up_bias=self._gate_up_bias,
            down_bias=self._down_bias,
            residual=residual,
        )


def check_expert(
    index: int, shape: tuple[int, int, int] | torch.Size, weight: Tensor, bias: Tensor | None, *, biased: bool
) -> None:
    """:raises ValueError: an expert's weight and bias do not fit ``shape``, that of all experts' weights."""
    num_experts, rows, columns = shape
    if not 0 <= index < num_experts:
        raise ValueError(f"there is no expert {index}: there are {num_experts}")
    if weight.shape != (rows, columns):
        raise ValueError(f"the weight of expert {index} is {list(weight.shape)}; [{rows}, {columns}] is needed")
    if (bias is not None) != biased:
        raise ValueError(f"expert {index} {'needs a bias' if biased else 'has no bias, but one was given'}")
    if bias is not None and bias.shape != (rows,):
        raise ValueError(f"the bias of expert {index} is {list(bias.shape)}; [{rows}] is needed")
