"""Llama 1, 2 and 3, and the many checkpoints that use its architecture: Yi, Aquila, XVERSE, DeepSeek-LLM, SOLAR …"""

from __future__ import annotations

from serving_image.models.config import AttentionConfig, DecoderConfig, FeedForwardConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import gated_activation, heads, rms_norm, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import Origin, TensorNames

ARCHITECTURES = ("LlamaForCausalLM", "AquilaModel", "AquilaForCausalLM", "XverseForCausalLM")

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


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised rotary attention and SwiGLU."""
    num_heads, num_kv_heads, head_dim = heads(config)
    rotary = rotary_config(config, head_dim)
    bias = config.boolean("attention_bias", default=False)
    mlp_bias = config.boolean("mlp_bias", default=False)
    attention = AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rotary=rotary,
        qkv_bias=bias,
        output_bias=bias,
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size"),
        gate=gated_activation(config),
        up_bias=mlp_bias,
        down_bias=mlp_bias,
    )
    norm = rms_norm(config)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=config.positive_int("hidden_size"),
        layers=(pre_norm_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers"),
        final_norm=norm,
        max_position=rotary.extended_max_position,
        tie_word_embeddings=tied(config, default=False),
    )
    return ModelDescription(decoder, NAMES)
