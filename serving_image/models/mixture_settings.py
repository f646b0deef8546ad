"""Mixtures of experts out of a ``config.json``."""

from __future__ import annotations

from kernels.moe import GatedActivation, Router
from serving_image.models.config import MixtureConfig
from serving_image.models.fields import gated_activation
from serving_image.models.hf_config import HFConfig


def mixture_config(
    config: HFConfig, router: Router, num_experts: int, intermediate_size: str = "intermediate_size"
) -> MixtureConfig:
    """Experts without biases.

    :param intermediate_size: the field with an expert's.
    :raises StartupError: the router cannot choose among so many experts.
    """
    try:
        router.check(num_experts)
    except ValueError as error:
        raise config.error(f"experts cannot be chosen as it asks: {error}") from error
    return MixtureConfig(
        num_experts=num_experts,
        intermediate_size=config.positive_int(intermediate_size),
        router=router,
        activation=GatedActivation(gated_activation(config)),
    )
