"""Normalisation with its parameters."""

from __future__ import annotations

from torch import Tensor

from kernels.layer_norm import layer_norm
from kernels.rms_norm import rms_norm
from serving_image.models.config import NormConfig
from serving_image.models.parameter_store import ParameterStore


class Norm:
    """``norm(x)``, or with ``residual``: ``residual += x``, and of that the norm."""

    def __init__(self, config: NormConfig, store: ParameterStore, module: str, size: int) -> None:
        self._config = config
        self._weight = store.weights_of_norm(module, config, size)
        self._bias = store.bias(module)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if self._config.kind == "rms":
            return rms_norm(x, self._weight, self._config.epsilon, residual)
        return layer_norm(x, self._weight, self._bias, self._config.epsilon, residual)


def optional_norm(config: NormConfig | None, store: ParameterStore, module: str, size: int) -> Norm | None:
    """The norm, where there is one."""
    return None if config is None else Norm(config, store, module, size)
