"""Helium: Llama whose rotary embedding pairs neighbours."""

from __future__ import annotations

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("HeliumForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    norm = rms_norm(config, default=1e-8)
    rotated = attention(
        config,
        default_theta=100_000.0,
        default_head_dim=128,
        bias=config.boolean("attention_bias", default=False),
        output_bias=False,
    )
    feed_forward = gated_feed_forward(config, bias=config.boolean("mlp_bias", default=False))
    layers = [pre_norm_layer(rotated, feed_forward, norm)] * num_layers(config)
    names = llama.names(llama.interleaved(rotated.head_dim))
    return ModelDescription(decoder(config, layers, norm), names)
