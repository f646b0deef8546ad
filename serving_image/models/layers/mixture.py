"""Mixtures of experts."""

from __future__ import annotations

from torch import Tensor

from kernels.elementwise import add
from kernels.moe import route
from serving_image.models.config import MixtureConfig
from serving_image.models.layers.feed_forward import FeedForward
from serving_image.models.layers.step import Step
from serving_image.models.parameter_store import ParameterStore


class Mixture:
    """Each token goes to some experts, and to those that all tokens share."""

    def __init__(self, config: MixtureConfig, store: ParameterStore, prefix: str) -> None:
        self._rule = config.router
        self._router = store.linear(prefix + "router")
        self._selection_bias = store.tensor(prefix + "selection_bias") if config.selection_bias else None
        self._experts = store.experts(prefix + "experts")
        self._shared = None if config.shared is None else FeedForward(config.shared, store, prefix + "shared.")
        self._shared_gate = store.linear(prefix + "shared_gate") if config.shared_gate else None

    def __call__(self, x: Tensor, step: Step, residual: Tensor | None) -> Tensor:
        routing = route(self._router.wide(x), self._rule, self._selection_bias)
        if self._shared is not None:
            residual = self._add_shared(self._shared, x, step, residual)
        return self._experts.forward(x, routing, residual)

    def _add_shared(self, shared: FeedForward, x: Tensor, step: Step, residual: Tensor | None) -> Tensor:
        if self._shared_gate is None:
            return shared(x, step, residual)
        return add(shared(x, step, None), residual, self._shared_gate(x))
