"""DeepSeek-V2: latent attention, and experts beside some that every token goes to."""

from __future__ import annotations

import math

from kernels.moe import GatedActivation, Router
from serving_image.models.architectures import llama, mixtral, qwen2_moe
from serving_image.models.config import (
    FeedForwardConfig,
    LatentAttentionConfig,
    LayerConfig,
    MixtureConfig,
    pre_norm_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_router, gated_activation, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rope_section, rotary_config
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import last_rotation, latent_up

ARCHITECTURES = ("DeepseekV2ForCausalLM",)

_LATENT_EPSILON = 1e-6
"""Of the norms within attention, whatever the configuration says about the others."""
_MIXTURE: dict[str, Origin] = {
    **qwen2_moe.MIXTURE,
    "mixture.selection_bias": "mlp.gate.e_score_correction_bias",
    "mixture.shared.gate_up": ("mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"),
    "mixture.shared.down": "mlp.shared_experts.down_proj",
}


def describe(config: HFConfig) -> ModelDescription:
    """Experts are chosen by their share, in DeepSeek-V2 itself from the best groups only."""
    grouped = config.choice("topk_method", {"greedy": False, "group_limited_greedy": True}, default="greedy")
    config.demand("scoring_func", "softmax")
    # The code published with the model leaves the scaling out if it renormalises, Transformers does not renormalise.
    config.demand("norm_topk_prob", False)
    router = Router(
        config.positive_int("num_experts_per_tok"),
        groups=config.positive_int("n_group") if grouped else 1,
        top_groups=config.positive_int("topk_group") if grouped else 1,
        scaling=config.number("routed_scaling_factor", default=1.0),
    )
    attention = latent_attention(config)
    num_experts = config.positive_int("n_routed_experts", default=64)
    mixture = experts(config, num_experts, router, num_shared=config.positive_int("n_shared_experts", default=2))
    layers = layers_of(config, attention, mixture, num_dense=config.count("first_k_dense_replace", default=0))
    return ModelDescription(mixtral.decoder(config, layers, attention.rotary), names(attention))


def latent_attention(config: HFConfig) -> LatentAttentionConfig:
    """Multi-head latent attention in the fields of DeepSeek."""
    nope_dim = config.positive_int("qk_nope_head_dim", default=128)
    rope_dim = config.positive_int("qk_rope_head_dim", default=64)
    return LatentAttentionConfig(
        num_heads=config.positive_int("num_attention_heads"),
        query_rank=config.optional_int("q_lora_rank", 1536),
        latent_dim=config.positive_int("kv_lora_rank", default=512),
        nope_dim=nope_dim,
        rope_dim=rope_dim,
        value_dim=config.positive_int("v_head_dim", default=128),
        scale=(nope_dim + rope_dim) ** -0.5 * _sharpening(config) ** 2,
        epsilon=_LATENT_EPSILON,
        rotary=rotary_config(config, rope_dim),
        has_bias=config.boolean("attention_bias", default=False),
    )


def _sharpening(config: HFConfig) -> float:
    """YaRN's factor on queries and keys (Peng et al. 2023, arXiv 2309.00071) where ``mscale_all_dim`` asks for it."""
    rope = rope_section(config)
    mscale = rope.optional_number("mscale_all_dim")
    if mscale is None or rope.string("rope_type", default=rope.string("type", default="default")) == "default":
        return 1.0
    return 1 + 0.1 * mscale * math.log(max(1.0, rope.number("factor")))


def experts(config: HFConfig, num_experts: int, router: Router, *, num_shared: int) -> MixtureConfig:
    """A mixture in the fields of DeepSeek: the shared experts are one wide block."""
    config.demand("moe_layer_freq", 1)
    size = config.positive_int("moe_intermediate_size")
    gate = gated_activation(config)
    return MixtureConfig(
        num_experts=num_experts,
        intermediate_size=size,
        router=checked_router(config, router, num_experts),
        activation=GatedActivation(gate),
        shared=FeedForwardConfig(intermediate_size=num_shared * size, gate=gate),
    )


def layers_of(
    config: HFConfig, attention: LatentAttentionConfig, mixture: MixtureConfig, num_dense: int
) -> tuple[LayerConfig, ...]:
    """The first layers are dense."""
    dense = FeedForwardConfig(intermediate_size=config.positive_int("intermediate_size"), gate=gated_activation(config))
    norm = rms_norm(config)
    return tuple(
        pre_norm_layer(attention, dense if layer < num_dense else mixture, norm)
        for layer in range(config.positive_int("num_hidden_layers"))
    )


def names(attention: LatentAttentionConfig, *, neighbours: bool = True, redundant: str | None = None) -> TensorNames:
    """Where the tensors are.

    :param neighbours: the rotary embedding pairs neighbours.
    """
    heads, nope, rope = attention.num_heads, attention.nope_dim, attention.rope_dim
    query = "q_proj" if attention.query_rank is None else "q_b_proj"
    latent_names: dict[str, Origin] = {
        "attention.norm": "input_layernorm",
        "attention.query_down": "self_attn.q_a_proj",
        "attention.query_norm": "self_attn.q_a_layernorm",
        "attention.query": _rotated(f"self_attn.{query}", nope + rope, rope, neighbours),
        "attention.latent_down": _rotated(
            "self_attn.kv_a_proj_with_mqa", attention.latent_dim + rope, rope, neighbours
        ),
        "attention.latent_norm": "self_attn.kv_a_layernorm",
        "attention.key_up": From("self_attn.kv_b_proj.weight", latent_up(heads, nope, attention.value_dim, "key")),
        "attention.value_up": From("self_attn.kv_b_proj.weight", latent_up(heads, nope, attention.value_dim, "value")),
        "attention.output": "self_attn.o_proj",
    }
    return TensorNames(
        layer="model.layers.{}.",
        layers={**latent_names, **llama.FEED_FORWARD, **_MIXTURE},
        top=llama.TOP,
        redundant=redundant,
    )


def _rotated(module: str, head_dim: int, rope_dim: int, neighbours: bool) -> Origin:
    return From(module, last_rotation(head_dim, rope_dim)) if neighbours else module
