"""Qwen1.5-MoE and Qwen2-MoE: biased attention, small experts and a gated one that every token goes to."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import Router
from serving_image.models.architectures import llama
from serving_image.models.assembly import FULL, SLIDING, attention, decoder, gated_feed_forward, layer_types, num_layers
from serving_image.models.config import FeedForwardConfig, MixtureConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.mixture_settings import mixture_config
from serving_image.models.tensor_names import Origin, TensorNames

ARCHITECTURES = ("Qwen2MoeForCausalLM",)

MIXTURE: dict[str, Origin] = {
    "mixture.norm": "post_attention_layernorm",
    "mixture.router": "mlp.gate",
    "mixture.experts.{}.gate_up": ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj"),
    "mixture.experts.{}.down": "mlp.experts.{}.down_proj",
}
_SHARED: dict[str, Origin] = {
    "mixture.shared.gate_up": ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"),
    "mixture.shared.down": "mlp.shared_expert.down_proj",
    "mixture.shared_gate": "mlp.shared_expert_gate",
}
NAMES = TensorNames(
    layer=llama.NAMES.layer,
    layers={**llama.ATTENTION, **llama.FEED_FORWARD, **MIXTURE, **_SHARED},
    top=llama.TOP,
)


def describe(config: HFConfig) -> ModelDescription:
    """Layers are dense or mixtures, with or without a window, each in turns of its own."""
    full = attention(config, bias=config.boolean("qkv_bias", default=True), output_bias=False)
    use_window = config.boolean("use_sliding_window", default=False)
    sliding = replace(full, window=config.optional_int("sliding_window", 4096)) if use_window else full
    last = config.count("max_window_layers", default=28)
    turns = [SLIDING if use_window and layer % 2 == 0 and layer < last else FULL for layer in range(num_layers(config))]
    types = layer_types(config, turns)
    if SLIDING in types and not use_window:
        raise config.error("layer_types has sliding_attention, but no sliding_window is used")
    shared = FeedForwardConfig(
        intermediate_size=config.positive_int("shared_expert_intermediate_size", default=5632),
        gate=gated_feed_forward(config).gate,
    )
    mixture = replace(experts(config, default_experts=60, default_top_k=4), shared=shared, shared_gate=True)
    norm = rms_norm(config)
    layers = [
        pre_norm_layer(sliding if kind == SLIDING else full, part, norm)
        for kind, part in zip(types, feed_forwards(config, mixture), strict=True)
    ]
    return ModelDescription(decoder(config, layers, norm), NAMES)


def experts(config: HFConfig, *, default_experts: int, default_top_k: int) -> MixtureConfig:
    """A mixture in the fields of Qwen; Transformers 5 calls one of them otherwise."""
    config = config.respelled({"num_local_experts": "num_experts"})
    router = Router(
        config.positive_int("num_experts_per_tok", default=default_top_k),
        renormalise=config.boolean("norm_topk_prob", default=False),
    )
    num_experts = config.positive_int("num_experts", default=default_experts)
    return mixture_config(config, router, num_experts, "moe_intermediate_size")


def feed_forwards(config: HFConfig, mixture: MixtureConfig) -> list[FeedForwardConfig | MixtureConfig]:
    """Each layer's: a mixture in every ``decoder_sparse_step``-th, but not in ``mlp_only_layers``."""
    dense = gated_feed_forward(config)
    step = config.positive_int("decoder_sparse_step", default=1)
    only_dense = config.integers("mlp_only_layers")
    return [dense if layer in only_dense or (layer + 1) % step else mixture for layer in range(num_layers(config))]
