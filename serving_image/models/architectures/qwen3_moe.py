"""Qwen3-MoE: head norms of queries and keys, small experts and none that is shared."""

from __future__ import annotations

from serving_image.models.architectures import llama, mixtral, qwen2_moe
from serving_image.models.config import AttentionConfig, QKNormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import TensorNames

ARCHITECTURES = ("Qwen3MoeForCausalLM",)

NAMES = TensorNames(
    layer="model.layers.{}.",
    layers={
        **llama.ATTENTION,
        "attention.query_norm": "self_attn.q_norm",
        "attention.key_norm": "self_attn.k_norm",
        **llama.FEED_FORWARD,
        **qwen2_moe.MIXTURE,
    },
    top=llama.TOP,
)


def describe(config: HFConfig) -> ModelDescription:
    """Layers are dense or mixtures, in turns."""
    num_heads, num_kv_heads, head_dim = heads(config)
    rotary = rotary_config(config, head_dim)
    bias = config.boolean("attention_bias", default=False)
    norm = rms_norm(config)
    attention = AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rotary=rotary,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=QKNormConfig(kind="rms", epsilon=norm.epsilon),
        window=config.optional_int("sliding_window") if config.boolean("use_sliding_window", default=False) else None,
    )
    mixture = qwen2_moe.experts(config, default_experts=128, default_top_k=8)
    layers = tuple(pre_norm_layer(attention, part, norm) for part in qwen2_moe.feed_forwards(config, mixture))
    return ModelDescription(mixtral.decoder(config, layers, rotary), NAMES)
