"""DeepSeek-V2: latent attention, and experts beside some that every token goes to."""

from __future__ import annotations

import math
from dataclasses import replace

from kernels.moe import Router
from serving_image.models.architectures import llama, qwen2_moe
from serving_image.models.assembly import decoder, gated_feed_forward, num_layers
from serving_image.models.config import LatentAttentionConfig, MixtureConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.mixture_settings import mixture_config
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
    mixture = experts(config, router, config.positive_int("n_routed_experts", default=64), default_shared=2)
    return description(config, attention, mixture, config.count("first_k_dense_replace", default=0), names(attention))


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


def experts(config: HFConfig, router: Router, num_experts: int, *, default_shared: int) -> MixtureConfig:
    """A mixture in the fields of DeepSeek: the shared experts are one wide block."""
    config.demand("moe_layer_freq", 1)
    mixture = mixture_config(config, router, num_experts, "moe_intermediate_size")
    size = config.positive_int("n_shared_experts", default=default_shared) * mixture.intermediate_size
    return replace(mixture, shared=replace(gated_feed_forward(config), intermediate_size=size))


def description(
    config: HFConfig, attention: LatentAttentionConfig, mixture: MixtureConfig, num_dense: int, names: TensorNames
) -> ModelDescription:
    """The first layers are dense."""
    dense, norm = gated_feed_forward(config), rms_norm(config)
    layers = [
        pre_norm_layer(attention, dense if layer < num_dense else mixture, norm) for layer in range(num_layers(config))
    ]
    return ModelDescription(decoder(config, layers, norm), names)


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
        layer=llama.NAMES.layer,
        layers={**latent_names, **llama.FEED_FORWARD, **_MIXTURE},
        top=llama.TOP,
        redundant=redundant,
    )


def _rotated(module: str, head_dim: int, rope_dim: int, neighbours: bool) -> Origin:
    return From(module, last_rotation(head_dim, rope_dim)) if neighbours else module
