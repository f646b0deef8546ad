"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import FULL, SLIDING, attention, decoder, gated_feed_forward, layer_types, num_layers
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
    first = config.positive_int("max_window_layers", default=28) if window else num_layers(config)
    types = layer_types(config, [FULL if index < first else SLIDING for index in range(num_layers(config))])
    if window is None and SLIDING in types:
        raise config.error("layer_types has sliding_attention, but no sliding_window is used")
    of_type = {FULL: full, SLIDING: replace(full, window=window)}
    return decoder(config, [pre_norm_layer(of_type[kind], feed_forward, norm) for kind in types], norm)
