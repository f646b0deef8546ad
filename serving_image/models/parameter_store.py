"""Where parameters go as they are loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.activation import GatedKind
from kernels.linear import ExpertWeights, GatedWeight, Layout, Weight
from serving_image.models.config import DecoderConfig, FeedForwardConfig, MixtureConfig, NormConfig
from serving_image.models.parameters import OPERATION_NAMES, parameter_specs

_EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(gate_up|down)\.weight")


@dataclass(slots=True)
class Linear:
    """A linear layer; its weight is in the device's layout."""

    weight: Weight
    bias: Tensor | None

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self.weight.multiply(x, self.bias, residual)

    def wide(self, x: Tensor) -> Tensor:
        """The result in float32."""
        return self.weight.multiply(x, self.bias, wide=True)


@dataclass(slots=True)
class GatedLinear:
    """The first half of a gated feed-forward block, its activation included."""

    weight: GatedWeight
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return self.weight.multiply(x, self.bias)


class ParameterStore:
    """Receives parameters one by one and puts each in its final layout at once, so that a plain copy of the whole
    model never exists.

    :param layout: puts a matrix of a linear layer in its final layout, in memory of its own.
    """

    def __init__(self, config: DecoderConfig, dtype: torch.dtype, device: torch.device, layout: Layout) -> None:
        self.dtype = dtype
        self.device = device
        self._layout = layout
        self._specs = parameter_specs(config)
        self._tensors: dict[str, Tensor] = {}
        self._weights: dict[str, Weight] = {}
        self._gated: dict[str, GatedWeight] = {}
        self._gates = _gates(config)
        self._experts = {
            prefix: layout.experts(
                mixture.num_experts,
                config.hidden_size,
                mixture.intermediate_size,
                dtype,
                device,
                activation=mixture.activation,
                biases=mixture.expert_bias,
            )
            for prefix, mixture in _mixtures(config).items()
        }

    def add(self, name: str, tensor: Tensor) -> None:
        """Take over a parameter, a bias before its weight. ``tensor`` may be a view of a mapped file, so whatever is
        kept is a copy."""
        use = self._specs[name].use
        if use == "plain":
            self._tensors[name] = tensor.to(self.device, copy=True, memory_format=torch.contiguous_format)
            return
        weight = tensor.to(self.device).contiguous()
        module = name.removesuffix(".weight")
        if use == "product":
            self._weights[module] = self._layout.weight(weight)
        elif use == "gated":
            gate, has_bias = self._gates[module]
            self._gated[module] = self._layout.gated(weight, has_bias=has_bias, kind=gate)
        else:
            self._add_expert(name, weight)

    def _add_expert(self, name: str, weight: Tensor) -> None:
        found = _EXPERT.fullmatch(name)
        if found is None:
            raise ValueError(f"{name} is not an expert's weight")
        bias = self._tensors.pop(name.removesuffix("weight") + "bias", None)
        experts, index = self._experts[found[1]], int(found[2])
        put = experts.set_gate_up if found[3] == "gate_up" else experts.set_down
        put(index, weight, bias)

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]

    def bias(self, module: str) -> Tensor | None:
        return self._tensors.get(module + ".bias")

    def weights_of_norm(self, module: str, norm: NormConfig, size: int) -> Tensor:
        """A norm's weights; ones for one that has none."""
        if norm.has_weight:
            return self._tensors[module + ".weight"]
        return torch.ones(size, dtype=self.dtype, device=self.device)

    def linear(self, module: str) -> Linear:
        return Linear(self._weights[module], self.bias(module))

    def linear_of(self, tensor: Tensor, module: str) -> Linear:
        """A linear layer by the weight of another parameter, such as a tied embedding: lookup needs the plain layout
        and the product the packed one, so it is held in both."""
        self._weights[module] = self._layout.weight(tensor)
        return self.linear(module)

    def gated_linear(self, module: str) -> GatedLinear:
        return GatedLinear(self._gated[module], self.bias(module))

    def experts(self, prefix: str) -> ExpertWeights:
        return self._experts[prefix]

    @property
    def nbytes(self) -> int:
        """Memory that the parameters take."""
        products = sum(weight.nbytes for weight in self._weights.values())
        gates = sum(weight.nbytes for weight in self._gated.values())
        experts = sum(weights.nbytes for weights in self._experts.values())
        return products + gates + experts + sum(tensor.nbytes for tensor in self._tensors.values())


def _mixtures(config: DecoderConfig) -> dict[str, MixtureConfig]:
    """Every mixture by the prefix of its experts' names."""
    return {
        f"layers.{index}.{OPERATION_NAMES[MixtureConfig]}.experts": block.operation
        for index, layer in enumerate(config.layers)
        for block in layer
        if isinstance(block.operation, MixtureConfig)
    }


class _Gate(NamedTuple):
    """The activation of a gated block, and whether a bias comes before it."""

    kind: GatedKind
    has_bias: bool


def _gates(config: DecoderConfig) -> dict[str, _Gate]:
    """Every gated block by the name of its first product."""
    found: dict[str, FeedForwardConfig] = {}
    for index, layer in enumerate(config.layers):
        for block in layer:
            prefix = f"layers.{index}.{OPERATION_NAMES[type(block.operation)]}"
            match block.operation:
                case FeedForwardConfig() as feed_forward:
                    found[prefix] = feed_forward
                case MixtureConfig(shared=FeedForwardConfig() as shared):
                    found[prefix + ".shared"] = shared
    return {f"{prefix}.gate_up": _Gate(part.gate, part.up_bias) for prefix, part in found.items() if part.gate}
