"""Cohere Command-R and Aya: attention and SwiGLU side by side, rotation of neighbouring pairs, scaled logits."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import QKNormConfig, parallel_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, layer_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import From, TensorNames
from serving_image.models.transforms import flattened_heads, half_rotation, scaled

ARCHITECTURES = ("CohereForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Both blocks read the layer's input through one norm, which has no bias."""
    norm = layer_norm(config, "layer_norm_eps", has_bias=False)
    # Command-R v01 was made for 131,072 tokens, which it states here, and 8,192 where others state theirs.
    positions = config.optional_int("model_max_length")
    head_dim = heads(config).head_dim
    rotary = rotary_config(config, head_dim, default_theta=500_000.0, max_position=positions)
    rotated = attention(config, rotary=rotary, bias=config.boolean("attention_bias", default=False))
    if config.boolean("use_qk_norm", default=False):
        rotated = replace(rotated, qk_norm=QKNormConfig(kind="layer", epsilon=norm.epsilon, per_head=True))
    layers = [parallel_layer(rotated, gated_feed_forward(config), norm)] * num_layers(config)
    return ModelDescription(decoder(config, layers, replace(norm, wide=True), tied=True), names(config, head_dim))


def names(config: HFConfig, head_dim: int) -> TensorNames:
    """Llama's, with rows of rotated heads reordered and the factor on the logits in the last norm."""
    head_norm = flattened_heads(head_dim).then(half_rotation(head_dim))
    return llama.names(
        {
            **llama.interleaved(head_dim),
            "attention.query_norm": From("self_attn.q_norm", head_norm),
            "attention.key_norm": From("self_attn.k_norm", head_norm),
        },
        {"final_norm": From("model.norm", scaled(config.number("logit_scale", default=0.0625)))},
    )
