"""OLMo 3: OLMo 2 with windows on three layers of four; only the full ones extend their rotary embedding."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.olmo2 import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, layer_windows, post_norm_layer
from serving_image.models.config import QKNormConfig
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_by_layer_type

ARCHITECTURES = ("Olmo3ForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Rotary attention and SwiGLU, normalised after each."""
    norm = rms_norm(config, default=1e-5)
    rotaries = rotary_by_layer_type(config, heads(config).head_dim, default_theta=500_000.0)
    full = replace(
        attention(config, rotary=rotaries["full_attention"], bias=config.boolean("attention_bias", default=False)),
        qk_norm=QKNormConfig(kind="rms", epsilon=norm.epsilon, extent="projection"),
    )
    windows = layer_windows(
        config, config.positive_int("sliding_window", default=4096), lambda layer: (layer + 1) % 4 != 0
    )
    feed_forward = gated_feed_forward(config)
    layers = [
        post_norm_layer(
            replace(full, rotary=rotaries["sliding_attention"], window=size) if size else full, feed_forward, norm
        )
        for size in windows
    ]
    return ModelDescription(decoder(config, layers, norm), NAMES)
