"""Gemma 2: Gemma with norms after each block too, windows on every other layer, and soft caps."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import gemma, llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, layer_windows, sandwich_layer
from serving_image.models.description import ModelDescription
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, Origin
from serving_image.models.transforms import PLUS_ONE

ARCHITECTURES = ("Gemma2ForCausalLM",)

NORMS: dict[str, Origin] = {
    "attention.norm": From("input_layernorm", PLUS_ONE),
    "attention.output_norm": From("post_attention_layernorm", PLUS_ONE),
    "feed_forward.norm": From("pre_feedforward_layernorm", PLUS_ONE),
    "feed_forward.output_norm": From("post_feedforward_layernorm", PLUS_ONE),
}
NAMES = llama.names(NORMS, gemma.FINAL_NORM)


def describe(config: HFConfig) -> ModelDescription:
    """Rotary attention and GeGLU, normalised before and after."""
    config.demand("use_bidirectional_attention", False)
    full = replace(
        attention(config, default_head_dim=256, bias=config.boolean("attention_bias", default=False)),
        scale=config.number("query_pre_attn_scalar", default=256) ** -0.5,
        softcap=config.optional_number("attn_logit_softcapping", 50.0),
    )
    windows = layer_windows(config, config.positive_int("sliding_window", default=4096), lambda layer: layer % 2 == 0)
    feed_forward = gated_feed_forward(config, activation="hidden_activation", default="gelu_pytorch_tanh")
    norm = gemma.unit_offset_norm(config)
    whole = decoder(
        config,
        [sandwich_layer(replace(full, window=size), feed_forward, norm) for size in windows],
        norm,
        tied=True,
        embedding=gemma.scaled_embedding(config),
        logit_softcap=config.optional_number("final_logit_softcapping", 30.0),
    )
    return ModelDescription(whole, NAMES)
