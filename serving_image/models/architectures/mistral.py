"""Mistral: Llama whose layers attend to a window."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("MistralForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU. The window is 4096 tokens where the file does not say."""
    windowed = replace(attention(config), window=config.optional_int("sliding_window", 4096))
    norm = rms_norm(config)
    layer = pre_norm_layer(windowed, gated_feed_forward(config), norm)
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)
