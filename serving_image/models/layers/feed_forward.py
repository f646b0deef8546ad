"""Dense feed-forward blocks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kernels.activation import activate, xielu
from serving_image.models.config import FeedForwardConfig
from serving_image.models.layers.step import Step
from serving_image.models.parameter_store import ParameterStore

_XIELU_BETA = 0.5
_XIELU_EPSILON = -1e-6


class FeedForward:
    """``down(gate(x) * up(x))`` or ``down(activation(up(x)))``."""

    def __init__(self, config: FeedForwardConfig, store: ParameterStore, prefix: str) -> None:
        self._first = _first_half(config, store, prefix)
        self._down = store.linear(prefix + "down")

    def __call__(self, x: Tensor, _: Step, residual: Tensor | None) -> Tensor:
        return self._down(self._first(x), residual)


def _first_half(config: FeedForwardConfig, store: ParameterStore, prefix: str) -> Callable[[Tensor], Tensor]:
    kind = config.activation
    if kind is None:
        return store.gated_linear(prefix + "gate_up")
    up = store.linear(prefix + "up")
    if kind == "xielu":
        positive, negative = (store.tensor(f"{prefix}alpha_{sign}").item() for sign in ("positive", "negative"))
        return lambda x: xielu(up(x), positive, negative, _XIELU_BETA, _XIELU_EPSILON)
    return lambda x: activate(up(x), kind)
