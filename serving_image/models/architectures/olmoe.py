"""OLMoE: norms over all queries and all keys of a token, and a mixture of experts in every layer."""

from __future__ import annotations

from kernels.moe import GatedActivation, Router
from serving_image.models.architectures import llama, mixtral, qwen2_moe
from serving_image.models.config import AttentionConfig, MixtureConfig, QKNormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_router, gated_activation, heads, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import TensorNames

ARCHITECTURES = ("OlmoeForCausalLM",)

NAMES = TensorNames(
    layer="model.layers.{}.",
    layers={
        **llama.ATTENTION,
        "attention.query_norm": "self_attn.q_norm",
        "attention.key_norm": "self_attn.k_norm",
        **qwen2_moe.MIXTURE,
    },
    top=llama.TOP,
)


def describe(config: HFConfig) -> ModelDescription:
    """Queries and keys are normalised, then clipped where the configuration asks for it."""
    num_heads, num_kv_heads, head_dim = heads(config)
    rotary = rotary_config(config, head_dim)
    bias = config.boolean("attention_bias", default=False)
    norm = rms_norm(config, default=1e-5)
    clip = config.optional_number("clip_qkv")
    attention = AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rotary=rotary,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=QKNormConfig(
            kind="rms", epsilon=norm.epsilon, extent="projection", per_head=True, before_clip=clip is not None
        ),
        clip=clip,
    )
    layer = pre_norm_layer(attention, _mixture(config), norm)
    layers = (layer,) * config.positive_int("num_hidden_layers")
    return ModelDescription(mixtral.decoder(config, layers, rotary, 1e-5), NAMES)


def _mixture(config: HFConfig) -> MixtureConfig:
    num_experts = config.positive_int("num_experts", default=64)
    router = Router(
        config.positive_int("num_experts_per_tok", default=8),
        renormalise=config.boolean("norm_topk_prob", default=False),
    )
    return MixtureConfig(
        num_experts=num_experts,
        intermediate_size=config.positive_int("intermediate_size"),
        router=checked_router(config, router, num_experts),
        activation=GatedActivation(gated_activation(config)),
    )
