"""OLMo 1: Llama with norms that have no weights, and queries, keys and values cut to a range."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import NormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("OlmoForCausalLM",)

_NORM = NormConfig(kind="layer", epsilon=1e-5, has_weight=False)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    clipped = replace(
        attention(config, bias=config.boolean("attention_bias", default=False)), clip=config.optional_number("clip_qkv")
    )
    layer = pre_norm_layer(clipped, gated_feed_forward(config), _NORM)
    return ModelDescription(decoder(config, [layer] * num_layers(config), _NORM), NAMES)
