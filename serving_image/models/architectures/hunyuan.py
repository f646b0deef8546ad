"""Hunyuan (dense): Llama with norms of each head's query and key after their rotation."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import QKNormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary import RotaryConfig
from serving_image.models.rotary_settings import rope_section, rotary_config

ARCHITECTURES = ("HunYuanDenseV1ForCausalLM",)

NAMES = llama.names(
    {
        "attention.query_norm": "self_attn.query_layernorm",
        "attention.key_norm": "self_attn.key_layernorm",
    },
)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    config.demand("use_qk_norm", True)
    config.demand("use_cla", False)
    config.demand("mlp_bias", False)
    norm = rms_norm(config, default=1e-5)
    normed = replace(
        attention(config, rotary=_rotary(config), bias=config.boolean("attention_bias", default=False)),
        qk_norm=QKNormConfig(kind="rms", epsilon=norm.epsilon, after_rotation=True),
    )
    layer = pre_norm_layer(normed, gated_feed_forward(config), norm)
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)


def _rotary(config: HFConfig) -> RotaryConfig:
    """``dynamic`` with an ``alpha`` does not follow the sequence's length: it multiplies the base, once and for all."""
    rope, head_dim = rope_section(config), heads(config).head_dim
    alpha = rope.optional_number("alpha")
    if alpha is None or rope.string("rope_type", default=rope.string("type", default="default")) != "dynamic":
        return rotary_config(config, head_dim)
    if head_dim == 2:
        raise config.error("2 elements of a head are too few for dynamic rotary scaling")
    theta = rope.number("rope_theta", default=config.number("rope_theta", default=10000.0))
    unscaled = HFConfig(config.path, {})
    return rotary_config(config, head_dim, rope=unscaled, theta=theta * alpha ** (head_dim / (head_dim - 2)))
