"""Phi-3 and Phi-4: Llama with fused projections, LongRoPE, and a window in some checkpoints."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config, rotary_dim

ARCHITECTURES = ("Phi3ForCausalLM",)

NAMES = llama.names(
    {
        "attention.qkv": "self_attn.qkv_proj",
        "feed_forward.gate_up": "mlp.gate_up_proj",
    },
)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    for bias in ("attention_bias", "mlp_bias", "lm_head_bias"):
        config.demand(bias, False)
    norm = rms_norm(config, default=1e-5)
    rotary = rotary_config(
        config,
        rotary_dim(config, heads(config).head_dim),
        max_position=config.positive_int("max_position_embeddings", default=4096),
    )
    windowed = replace(attention(config, rotary=rotary), window=config.optional_int("sliding_window"))
    layer = pre_norm_layer(windowed, gated_feed_forward(config), norm)
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)
