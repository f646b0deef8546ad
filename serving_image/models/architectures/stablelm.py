"""StableLM: Llama with layer norms and a quarter of each head rotated; some with head norms and parallel blocks."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import llama
from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import AttentionConfig, QKNormConfig, parallel_layer, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, layer_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config, rotary_dim
from serving_image.models.tensor_names import TensorNames

ARCHITECTURES = ("StableLmForCausalLM", "StableLMEpochForCausalLM")


def describe(config: HFConfig) -> ModelDescription:
    """Rotary attention and SwiGLU, one after the other or side by side."""
    config = config.respelled({"rope_pct": "partial_rotary_factor", "norm_eps": "layer_norm_eps"})
    config.demand("rotary_scaling_factor", 1.0)
    norm = layer_norm(config, "layer_norm_eps")
    rotary = rotary_config(config, rotary_dim(config, heads(config).head_dim, default=0.25))
    rotated = attention(config, rotary=rotary, bias=config.boolean("use_qkv_bias", default=False), output_bias=False)
    if config.boolean("qk_layernorm", default=False):
        rotated = replace(rotated, qk_norm=QKNormConfig(kind="layer", epsilon=norm.epsilon, per_head=True))
    layer_of = parallel_layer if config.boolean("use_parallel_residual", default=False) else pre_norm_layer
    layers = [layer_of(rotated, gated_feed_forward(config), norm)] * num_layers(config)
    return ModelDescription(decoder(config, layers, norm), _names(rotated))


def _names(attention: AttentionConfig) -> TensorNames:
    """Llama's, and a module for the norm of every head."""
    norms = {
        f"attention.{ours}_norm": tuple(f"self_attn.{theirs}_layernorm.norms.{head}" for head in range(count))
        for ours, theirs, count in (("query", "q", attention.num_heads), ("key", "k", attention.num_kv_heads))
    }
    return llama.names(norms)
