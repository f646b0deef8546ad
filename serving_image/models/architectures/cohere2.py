"""Cohere Command-R7B and Command-A: Cohere with windows on three layers of four; only those are rotated."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import cohere
from serving_image.models.assembly import attention, decoder, gated_feed_forward, layer_windows
from serving_image.models.config import parallel_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import layer_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("Cohere2ForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Both blocks read the layer's input through one norm, which has no bias."""
    config.demand("use_qk_norm", False)
    config.demand("position_embedding_type", "rope_gptj")
    config.demand("rotary_pct", 1.0)
    config.demand("use_gated_activation", True)
    config.demand("use_parallel_block", True)
    norm = layer_norm(config, "layer_norm_eps", has_bias=False)
    rotated = attention(config, bias=config.boolean("attention_bias", default=False))
    window = config.positive_int("sliding_window", default=4096)
    interval = config.positive_int("sliding_window_pattern", default=4)
    windows = layer_windows(config, window, lambda layer: (layer + 1) % interval != 0)
    full, sliding = replace(rotated, rotary=None), replace(rotated, window=window)
    feed_forward = gated_feed_forward(config)
    layers = [parallel_layer(sliding if size else full, feed_forward, norm) for size in windows]
    whole = decoder(config, layers, replace(norm, wide=True), tied=True)
    return ModelDescription(whole, cohere.names(config, rotated.head_dim))
