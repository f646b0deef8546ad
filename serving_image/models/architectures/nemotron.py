"""Nemotron and Minitron: layer norms of ``1 + weight``, partial rotation, squared ReLU without a gate."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import arcee, llama
from serving_image.models.assembly import attention, decoder, num_layers, plain_feed_forward
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, layer_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config, rotary_dim
from serving_image.models.tensor_names import From
from serving_image.models.transforms import PLUS_ONE

ARCHITECTURES = ("NemotronForCausalLM",)

NAMES = llama.names(
    {
        **arcee.UP,
        "attention.norm.weight": From("input_layernorm.weight", PLUS_ONE),
        "feed_forward.norm.weight": From("post_attention_layernorm.weight", PLUS_ONE),
    },
    {"final_norm.weight": From("model.norm.weight", PLUS_ONE)},
)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and a plain block."""
    config = config.respelled({"rope_percent": "partial_rotary_factor", "rope_percentage": "partial_rotary_factor"})
    norm = replace(layer_norm(config, "norm_eps"), wide=True)
    rotary = rotary_config(config, rotary_dim(config, heads(config).head_dim, default=0.5))
    layer = pre_norm_layer(
        attention(config, rotary=rotary, bias=config.boolean("attention_bias", default=False)),
        plain_feed_forward(config, bias=config.boolean("mlp_bias", default=False), default="relu2"),
        norm,
    )
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)
