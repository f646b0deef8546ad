"""Mixtures of experts with the shapes of published models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.workloads.tensors import random
from kernels.moe import Routing, experts_forward


@dataclass(frozen=True, slots=True)
class Experts:
    """One layer's sizes; by default those of Qwen3 30B-A3B."""

    hidden: int = 2048
    intermediate: int = 768
    experts: int = 128
    top_k: int = 8
    dtype: torch.dtype = torch.bfloat16

    def layer(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Random weights: ``gate_up`` and ``down``, small enough for sums to stay in range."""
        gate_up = (self.experts, 2 * self.intermediate, self.hidden)
        down = (self.experts, self.hidden, self.intermediate)
        return random(gate_up, self.dtype, device, 0.02), random(down, self.dtype, device, 0.02)


@dataclass(frozen=True, slots=True)
class MoECall:
    """Arguments of :func:`kernels.moe.experts_forward`. Called, it computes the layer without its router."""

    x: Tensor
    gate_up: Tensor
    down: Tensor
    routing: Routing

    def __call__(self) -> Tensor:
        return experts_forward(self.x, self.gate_up, self.down, self.routing)


def mixture(experts: Experts, tokens: int, layer: tuple[Tensor, Tensor]) -> MoECall:
    """Tokens whose random router scores spread them over the experts."""
    gate_up, down = layer
    logits = random((tokens, experts.experts), torch.float32, gate_up.device)
    x = random((tokens, experts.hidden), experts.dtype, gate_up.device)
    weights, chosen = logits.softmax(dim=-1).topk(experts.top_k)
    return MoECall(x, gate_up, down, Routing(weights, chosen.int()))
