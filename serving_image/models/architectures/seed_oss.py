"""Seed-OSS: Llama with biases on queries, keys and values."""

from __future__ import annotations

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("SeedOssForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    norm = rms_norm(config)
    layer = pre_norm_layer(
        attention(
            config,
            default_head_dim=128,
            bias=config.boolean("attention_bias", default=True),
            output_bias=config.boolean("attention_out_bias", default=False),
        ),
        gated_feed_forward(config, bias=config.boolean("mlp_bias", default=False)),
        norm,
    )
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)
