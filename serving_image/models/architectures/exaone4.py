"""EXAONE 4: norms after each block and of each head; where layers have windows, only those are rotated."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.olmo2 import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, layer_windows, post_norm_layer
from serving_image.models.config import QKNormConfig
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("Exaone4ForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Attention and SwiGLU, normalised after each."""
    norm = rms_norm(config, default=1e-5)
    rotated = replace(attention(config), qk_norm=QKNormConfig(kind="rms", epsilon=norm.epsilon))
    window = config.optional_int("sliding_window", 4096)
    # A pattern of letters stands beside layer_types, which is then what counts.
    interval = 4 if config.strings("layer_types") else config.positive_int("sliding_window_pattern", default=4)
    windows = layer_windows(config, window, lambda layer: window is not None and (layer + 1) % interval != 0)
    full = rotated if window is None else replace(rotated, rotary=None)
    feed_forward = gated_feed_forward(config)
    layers = [post_norm_layer(replace(rotated, window=size) if size else full, feed_forward, norm) for size in windows]
    return ModelDescription(decoder(config, layers, norm), NAMES)
