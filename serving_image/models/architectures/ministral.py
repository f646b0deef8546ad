"""Ministral: Mistral of which some layers attend to a window and some to everything."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import FULL, SLIDING, attention, decoder, gated_feed_forward, layer_types, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("MinistralForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    window = config.optional_int("sliding_window", 4096)
    types = layer_types(config, [SLIDING if window else FULL] * num_layers(config))
    if window is None and SLIDING in types:
        raise config.error("layer_types has sliding_attention, but there is no sliding_window")
    full, feed_forward, norm = attention(config), gated_feed_forward(config), rms_norm(config)
    of_type = {FULL: full, SLIDING: replace(full, window=window)}
    layers = [pre_norm_layer(of_type[kind], feed_forward, norm) for kind in types]
    return ModelDescription(decoder(config, layers, norm), NAMES)
