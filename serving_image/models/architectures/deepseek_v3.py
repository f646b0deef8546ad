"""DeepSeek-V3 and R1: latent attention, and experts chosen by their sigmoid and a bias that balances them."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import Router
from serving_image.models.architectures import deepseek_v2
from serving_image.models.description import ModelDescription
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("DeepseekV3ForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Layers behind the last one predict further tokens in training; they are left out."""
    config = config.respelled({"num_local_experts": "n_routed_experts"})
    config.demand("scoring_func", "sigmoid")
    config.demand("topk_method", "noaux_tc")
    num_experts = config.positive_int("n_routed_experts", default=256)
    router = Router(
        config.positive_int("num_experts_per_tok", default=8),
        "sigmoid",
        renormalise=config.boolean("norm_topk_prob", default=True),
        groups=config.positive_int("n_group", default=8),
        top_groups=config.positive_int("topk_group", default=4),
        group_best=2,
        scaling=config.number("routed_scaling_factor", default=2.5),
    )
    attention = deepseek_v2.latent_attention(config)
    mixture = replace(deepseek_v2.experts(config, router, num_experts, default_shared=1), selection_bias=True)
    names = deepseek_v2.names(
        attention,
        neighbours=config.boolean("rope_interleave", default=True),
        redundant=_further_layers(config),
    )
    num_dense = config.count("first_k_dense_replace", default=3)
    return deepseek_v2.description(config, attention, mixture, num_dense, names)


def _further_layers(config: HFConfig) -> str | None:
    """The names of what predicts the token after the next, and so on."""
    count, first = config.count("num_nextn_predict_layers", default=1), config.positive_int("num_hidden_layers")
    numbers = "|".join(str(first + index) for index in range(count))
    return rf"^model\.layers\.({numbers})\." if count else None
