"""Experts by the compiled kernels (``kernels/native/src/experts.cpp``): only the weights of experts in use are read.

A token's result is the same, bit by bit, in a batch of any size. One token takes as long as reading its experts, and
512 as long as dense products of as many operations: ``benchmarks/results/experts.md``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels.activation.native import NUMBERS
from kernels.linear import native
from kernels.linear.experts import check_expert
from kernels.moe import GatedActivation, Routing
from kernels.native import library

_LANES = 16


class PackedExperts:
    """Each expert in panels, one expert after another; the intermediate size is padded with zeros to whole vectors.

    :param layout: what becomes of each expert's weights.
    """

    def __init__(
        self,
        num_experts: int,
        hidden: int,
        intermediate: int,
        dtype: torch.dtype,
        activation: GatedActivation,
        layout: type[native.PackedWeight] | type[native.Int8Weight],
        *,
        biases: bool,
    ) -> None:
        self._num_experts, self._hidden, self._intermediate = num_experts, hidden, intermediate
        self._padded = -(-intermediate // _LANES) * _LANES
        self._dtype = dtype
        self._layout = layout
        self._gate_up = layout.memory(2 * self._padded, hidden, dtype, num_experts)
        self._down = layout.memory(hidden, self._padded, dtype, num_experts)
        self._gate_up_bias = torch.zeros(num_experts, 2, self._padded, dtype=dtype) if biases else None
        self._down_bias = torch.zeros(num_experts, hidden, dtype=dtype) if biases else None
        parts = (self._gate_up, self._down, self._gate_up_bias, self._down_bias)
        self.nbytes = sum(part.nbytes for part in parts if part is not None)
        alpha, limit, offset = (float(part) for part in activation[1:])
        self._activation = (NUMBERS[activation.kind], alpha, limit, offset)
        self._sort = library.untyped_function("sort_choices")
        self._gate = library.function(f"gate_experts{layout.kind}", dtype)
        self._join = library.function(f"join_experts{layout.kind}", dtype)

    def set_gate_up(self, index: int, weight: Tensor, bias: Tensor | None = None) -> None:
        """See :class:`kernels.linear.ExpertWeights`."""
        shape = (self._num_experts, 2 * self._intermediate, self._hidden)
        check_expert(index, shape, weight, bias, biased=self._gate_up_bias is not None)
        weight = weight.to(self._dtype)
        if missing := self._padded - self._intermediate:
            weight = functional.pad(weight.view(2, self._intermediate, -1), (0, 0, 0, missing)).flatten(0, 1)
        self._layout.pack_gated(weight, self._gate_up[index])
        if self._gate_up_bias is not None and bias is not None:
            self._gate_up_bias[index, :, : self._intermediate] = bias.view(2, -1)

    def set_down(self, index: int, weight: Tensor, bias: Tensor | None = None) -> None:
        """See :class:`kernels.linear.ExpertWeights`."""
        shape = (self._num_experts, self._hidden, self._intermediate)
        check_expert(index, shape, weight, bias, biased=self._down_bias is not None)
        weight = weight.to(self._dtype)
        if missing := self._padded - self._intermediate:
            weight = functional.pad(weight, (0, missing))
        self._layout.pack(weight, self._down[index])
        if self._down_bias is not None and bias is not None:
            self._down_bias[index] = bias

    def forward(self, x: Tensor, routing: Routing, residual: Tensor | None = None) -> Tensor:
        """See :class:`kernels.linear.ExpertWeights`."""
        native.check_input(x, self._hidden, self._dtype)
        tokens, top_k = routing.experts.shape
        self._check(tokens, routing, x, residual)
        order = library.result((tokens * top_k,), torch.int32)
        starts = library.result((self._num_experts + 1,), torch.int32)
        sorted_by = (order.data_ptr(), starts.data_ptr(), self._num_experts, top_k)
        self._sort(routing.experts.data_ptr(), tokens * top_k, self._num_experts, *sorted_by[:2])
        gated = library.result((tokens * top_k, self._padded), self._dtype)
        self._gate(
            x.data_ptr(),
            self._hidden,
            self._padded,
            *sorted_by,
            self._gate_up.data_ptr(),
            _address(self._gate_up_bias),
            *self._activation,
            gated.data_ptr(),
        )
        terms = library.result((tokens * top_k, self._hidden), self._dtype)
        out = library.result((tokens, self._hidden), self._dtype)
        self._join(
            gated.data_ptr(),
            self._padded,
            self._hidden,
            *sorted_by,
            self._down.data_ptr(),
            _address(self._down_bias),
            routing.weights.data_ptr(),
            _address(residual),
            terms.data_ptr(),
            out.data_ptr(),
        )
        return out

    def _check(self, tokens: int, routing: Routing, x: Tensor, residual: Tensor | None) -> None:
        """:raises ValueError: a compiled product would read what is not there."""
        experts, weights = routing.experts, routing.weights
        if tokens != x.shape[0] or weights.shape != experts.shape:
            raise ValueError(f"a routing {list(experts.shape)}, {list(weights.shape)} does not fit x {list(x.shape)}")
        if experts.dtype != torch.int32 or weights.dtype != torch.float32:
            raise ValueError(f"experts are {experts.dtype} and weights {weights.dtype}; int32 and float32 are needed")
        if not (experts.is_contiguous() and weights.is_contiguous()):
            raise ValueError("the routing must be contiguous")
        if residual is not None:
            native.check_input(residual, self._hidden, self._dtype)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
