"""ERNIE 4.5 (dense): Llama whose rotary embedding pairs neighbours."""

from __future__ import annotations

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM")


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    bias = config.boolean("use_bias", default=False)
    norm = rms_norm(config, default=1e-5)
    rotated = attention(config, default_theta=500_000.0, default_head_dim=128, bias=bias)
    layers = [pre_norm_layer(rotated, gated_feed_forward(config, bias=bias), norm)] * num_layers(config)
    names = llama.names(llama.interleaved(rotated.head_dim))
    return ModelDescription(decoder(config, layers, norm, tied=True), names)
