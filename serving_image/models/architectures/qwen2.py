"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, layer_windows
from serving_image.models.config import AttentionConfig, DecoderConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("Qwen2ForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU; the last layers may have a window."""
    return ModelDescription(windowed_decoder(config, attention(config, bias=True, output_bias=False)), NAMES)


def windowed_decoder(config: HFConfig, full: AttentionConfig) -> DecoderConfig:
    """Layers of this attention; with a window where ``use_sliding_window`` and the layer's type ask for it."""
    feed_forward, norm = gated_feed_forward(config), rms_norm(config)
    use_window = config.boolean("use_sliding_window", default=False)
    window = config.optional_int("sliding_window", 4096) if use_window else None
    first = config.positive_int("max_window_layers", default=28)
    windows = layer_windows(config, window, lambda layer: window is not None and layer >= first)
    layers = [pre_norm_layer(replace(full, window=size), feed_forward, norm) for size in windows]
    return decoder(config, layers, norm)
