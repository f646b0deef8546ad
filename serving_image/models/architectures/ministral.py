"""Ministral: Mistral of which some layers attend to a window and some to everything."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, layer_windows
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("MinistralForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    window = config.optional_int("sliding_window", 4096)
    windows = layer_windows(config, window, lambda _: window is not None)
    full, feed_forward, norm = attention(config), gated_feed_forward(config), rms_norm(config)
    layers = [pre_norm_layer(replace(full, window=size), feed_forward, norm) for size in windows]
    return ModelDescription(decoder(config, layers, norm), NAMES)
