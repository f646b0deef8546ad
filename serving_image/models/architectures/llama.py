"""Llama 1, 2 and 3, and the many checkpoints that use its architecture: Yi, Aquila, XVERSE, DeepSeek-LLM, SOLAR …"""

from __future__ import annotations

from collections.abc import Mapping

from serving_image.models.assembly import attention, decoder, gated_feed_forward, num_layers
from serving_image.models.config import pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import half_rotation

ARCHITECTURES = ("LlamaForCausalLM", "LLaMAForCausalLM", "AquilaModel", "AquilaForCausalLM", "XverseForCausalLM")

TOP: dict[str, Origin] = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "lm_head": "lm_head"}
ATTENTION: dict[str, Origin] = {
    "attention.norm": "input_layernorm",
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.output": "self_attn.o_proj",
}
FEED_FORWARD: dict[str, Origin] = {
    "feed_forward.norm": "post_attention_layernorm",
    "feed_forward.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.down": "mlp.down_proj",
}
NAMES = TensorNames(layer="model.layers.{}.", layers={**ATTENTION, **FEED_FORWARD}, top=TOP)
"""The names that most families share."""


def names(
    layers: Mapping[str, Origin], top: Mapping[str, Origin] | None = None, redundant: str | None = None
) -> TensorNames:
    """The same, but for some modules of a layer or outside the layers."""
    return TensorNames(
        layer=NAMES.layer, layers={**NAMES.layers, **layers}, top={**TOP, **(top or {})}, redundant=redundant
    )


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    norm = rms_norm(config)
    layer = pre_norm_layer(
        attention(config, bias=config.boolean("attention_bias", default=False)),
        gated_feed_forward(config, bias=config.boolean("mlp_bias", default=False)),
        norm,
    )
    return ModelDescription(decoder(config, [layer] * num_layers(config), norm), NAMES)


def interleaved(head_dim: int, rotary_dim: int | None = None) -> dict[str, Origin]:
    """The names of queries, keys and values whose rotary embedding pairs neighbours."""
    halves = half_rotation(head_dim, rotary_dim)
    return {
        "attention.qkv": (From("self_attn.q_proj", halves), From("self_attn.k_proj", halves), "self_attn.v_proj"),
    }
