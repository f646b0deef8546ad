"""Qwen1.5-MoE and Qwen2-MoE: biased attention, small experts and a gated one that every token goes to."""

from __future__ import annotations

from dataclasses import replace

from kernels.moe import GatedActivation, Router
from serving_image.models.architectures import llama, mixtral
from serving_image.models.config import AttentionConfig, FeedForwardConfig, MixtureConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_router, gated_activation, heads, layer_windows, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config
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
    layer="model.layers.{}.",
    layers={**llama.ATTENTION, **llama.FEED_FORWARD, **MIXTURE, **_SHARED},
    top=llama.TOP,
)


def describe(config: HFConfig) -> ModelDescription:
    """Layers are dense or mixtures, in turns."""
    num_heads, num_kv_heads, head_dim = heads(config)
    rotary = rotary_config(config, head_dim)
    window = config.optional_int("sliding_window") if config.boolean("use_sliding_window", default=False) else None
    last = config.positive_int("max_window_layers", default=28)
    windows = layer_windows(config, window, lambda layer: window is not None and layer % 2 == 0 and layer < last)
    attentions = [
        AttentionConfig(
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            rotary=rotary,
            qkv_bias=config.boolean("qkv_bias", default=True),
            window=window,
        )
        for window in windows
    ]
    mixture = _mixture(config)
    layers = tuple(
        pre_norm_layer(attention, part, rms_norm(config))
        for attention, part in zip(attentions, feed_forwards(config, mixture), strict=True)
    )
    return ModelDescription(mixtral.decoder(config, layers, rotary), NAMES)


def feed_forwards(config: HFConfig, mixture: MixtureConfig) -> list[FeedForwardConfig | MixtureConfig]:
    """Each layer's: a mixture in every ``decoder_sparse_step``-th, but not in ``mlp_only_layers``."""
    dense = FeedForwardConfig(intermediate_size=config.positive_int("intermediate_size"), gate=gated_activation(config))
    step = config.positive_int("decoder_sparse_step", default=1)
    only_dense = config.integers("mlp_only_layers")
    return [
        dense if layer in only_dense or (layer + 1) % step else mixture
        for layer in range(config.positive_int("num_hidden_layers"))
    ]


def experts(config: HFConfig, default_experts: int, default_top_k: int) -> MixtureConfig:
    """A mixture in the fields of Qwen; Transformers 5 calls one of them otherwise."""
    config = config.respelled({"num_local_experts": "num_experts"})
    num_experts = config.positive_int("num_experts", default=default_experts)
    router = Router(
        config.positive_int("num_experts_per_tok", default=default_top_k),
        renormalise=config.boolean("norm_topk_prob", default=False),
    )
    return MixtureConfig(
        num_experts=num_experts,
        intermediate_size=config.positive_int("moe_intermediate_size"),
        router=checked_router(config, router, num_experts),
        activation=GatedActivation(gated_activation(config)),
    )


def _mixture(config: HFConfig) -> MixtureConfig:
    shared = FeedForwardConfig(
        intermediate_size=config.positive_int("shared_expert_intermediate_size"), gate=gated_activation(config)
    )
    return replace(experts(config, 60, 4), shared=shared, shared_gate=True)
