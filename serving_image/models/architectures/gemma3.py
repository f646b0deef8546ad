"""Gemma 3 (text): Gemma 2 without soft caps, with head norms, and a rotary base for each type of layer."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import gemma, gemma2, llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, layer_windows, sandwich_layer
from serving_image.models.config import QKNormConfig
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_by_layer_type
from serving_image.models.tensor_names import From, Origin
from serving_image.models.transforms import PLUS_ONE

ARCHITECTURES = ("Gemma3ForCausalLM",)

HEAD_NORMS: dict[str, Origin] = {
    "attention.query_norm": From("self_attn.q_norm", PLUS_ONE),
    "attention.key_norm": From("self_attn.k_norm", PLUS_ONE),
}
NAMES = llama.names({**gemma2.NORMS, **HEAD_NORMS}, gemma.FINAL_NORM)


def describe(config: HFConfig) -> ModelDescription:
    """Rotary attention and GeGLU, normalised before and after; five layers of six have a window."""
    config.demand("use_bidirectional_attention", False)
    config.demand("attn_logit_softcapping", None)
    norm = gemma.unit_offset_norm(config)
    rotaries = rotary_by_layer_type(
        config,
        heads(config, 256).head_dim,
        default_theta=1_000_000.0,
        local_theta=config.number("rope_local_base_freq", default=10000.0),
    )
    full = replace(
        attention(
            config,
            rotary=rotaries["full_attention"],
            default_head_dim=256,
            bias=config.boolean("attention_bias", default=False),
        ),
        scale=config.number("query_pre_attn_scalar", default=256) ** -0.5,
        qk_norm=QKNormConfig(kind="rms", epsilon=norm.epsilon, wide=True),
    )
    window = config.positive_int("sliding_window", default=4096)
    interval = config.positive_int("sliding_window_pattern", default=6)
    sliding = replace(full, rotary=rotaries["sliding_attention"], window=window)
    windows = layer_windows(config, window, lambda layer: (layer + 1) % interval != 0)
    feed_forward = gated_feed_forward(config, activation="hidden_activation", default="gelu_pytorch_tanh")
    whole = decoder(
        config,
        [sandwich_layer(sliding if size else full, feed_forward, norm) for size in windows],
        norm,
        tied=True,
        embedding=gemma.scaled_embedding(config),
        logit_softcap=config.optional_number("final_logit_softcapping"),
    )
    return ModelDescription(whole, NAMES)
