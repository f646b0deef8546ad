"""OLMo 2: norms after each block instead of before, and of a token's whole query and key."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers, post_norm_layer
from serving_image.models.config import QKNormConfig
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("Olmo2ForCausalLM",)

NAMES = llama.names(
    {
        "attention.query_norm": "self_attn.q_norm",
        "attention.key_norm": "self_attn.k_norm",
        "attention.output_norm": "post_attention_layernorm",
        "feed_forward.output_norm": "post_feedforward_layernorm",
    },
)


def describe(config: HFConfig) -> ModelDescription:
    """Rotary attention and SwiGLU, normalised after each."""
    norm = rms_norm(config, default=1e-5)
    normed = replace(
        attention(config, bias=config.boolean("attention_bias", default=False)),
        qk_norm=QKNormConfig(kind="rms", epsilon=norm.epsilon, extent="projection"),
    )
    layer = post_norm_layer(normed, gated_feed_forward(config), norm)
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)
