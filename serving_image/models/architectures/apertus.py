"""Apertus: Llama with head norms and a feed-forward block of xIELU, whose two numbers each layer learns."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import arcee, llama, qwen3
from serving_image.models.assembly import attention, decoder, num_layers
from serving_image.models.config import FeedForwardConfig, QKNormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rope_section, rotary_config
from serving_image.models.tensor_names import From
from serving_image.models.transforms import softplus

ARCHITECTURES = ("ApertusForCausalLM",)

_BETA = 0.5
_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0} | {
    "original_max_position_embeddings": 8192
}
"""Where the configuration has no section."""

NAMES = llama.names(
    {
        **qwen3.HEAD_NORMS,
        **arcee.UP,
        "attention.norm": "attention_layernorm",
        "feed_forward.norm": "feedforward_layernorm",
        "feed_forward.alpha_positive": From("mlp.act_fn.alpha_p", softplus()),
        "feed_forward.alpha_negative": From("mlp.act_fn.alpha_n", softplus(_BETA)),
    },
    # Constants of the activation, the same in every layer and checkpoint.
    redundant=r"\.mlp\.act_fn\.(beta|eps)$",
)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and a plain block."""
    config.demand("hidden_act", "xielu")
    config.demand("post_norm", False)
    config.demand("qk_norm", True)
    norm = rms_norm(config, default=1e-5)
    rope = rope_section(config) or HFConfig(config.path, _ROPE)
    rotary = rotary_config(config, heads(config).head_dim, rope=rope, default_theta=12_000_000.0)
    normed = replace(
        attention(config, rotary=rotary, bias=config.boolean("attention_bias", default=False)),
        qk_norm=QKNormConfig(kind="rms", epsilon=norm.epsilon),
    )
    feed_forward = FeedForwardConfig(intermediate_size=config.positive_int("intermediate_size"), activation="xielu")
    layers = [pre_norm_layer(normed, feed_forward, norm)] * num_layers(config)
    return ModelDescription(decoder(config, layers, norm), NAMES)
