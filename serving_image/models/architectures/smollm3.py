"""SmolLM3: Llama of which every fourth layer has no rotary embedding."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures.llama import NAMES
from serving_image.models.assembly import attention, decoder, gated_feed_forward, layer_windows, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("SmolLM3ForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised attention and SwiGLU; layers without a rotary embedding may have a window."""
    rotated = _rotated(config)
    use_window = config.boolean("use_sliding_window", default=False)
    window = config.optional_int("sliding_window") if use_window else None
    windows = layer_windows(config, window, lambda layer: window is not None and not rotated[layer])
    full = attention(config, default_theta=2_000_000.0, bias=config.boolean("attention_bias", default=False))
    feed_forward = gated_feed_forward(config, bias=config.boolean("mlp_bias", default=False))
    norm = rms_norm(config)
    layers = [
        pre_norm_layer(
            replace(full, rotary=full.rotary if has_rotary else None, window=size),
            feed_forward,
            norm,
        )
        for has_rotary, size in zip(rotated, windows, strict=True)
    ]
    return ModelDescription(decoder(config, layers, norm, tied=True), NAMES)


def _rotated(config: HFConfig) -> tuple[bool, ...]:
    """Whether a layer has a rotary embedding: ``no_rope_layers`` has a 1 for those that do."""
    count = num_layers(config)
    interval = config.positive_int("no_rope_layer_interval", default=4)
    flags = config.integers("no_rope_layers") or [(index + 1) % interval for index in range(count)]
    if len(flags) != count:
        raise config.error(f"no_rope_layers lists {len(flags)} layers of {count}")
    return tuple(map(bool, flags))
