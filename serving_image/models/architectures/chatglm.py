"""ChatGLM 2 and 3, and GLM-4 of 2024: GLM as its authors stored it, with everything fused.

``rope_ratio`` is a factor on the rotary base, as in ChatGLM 3 and GLM-4. ChatGLM2-6B-32K, which divides positions by it
instead, cannot be told from them by its configuration.
"""

from __future__ import annotations

from serving_image.models.assembly import decoder
from serving_image.models.config import AttentionConfig, FeedForwardConfig, NormConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, layer_norm, rms_norm
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import From, TensorNames
from serving_image.models.transforms import grouped_qkv, half_rotation, of_qkv

ARCHITECTURES = ("ChatGLMModel", "ChatGLMForConditionalGeneration")

_SPELLINGS = {"padded_vocab_size": "vocab_size", "seq_length": "max_position_embeddings"}


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised attention, of which half of each head is rotated in neighbouring pairs, and SwiGLU."""
    _refuse(config)
    config = config.respelled(_SPELLINGS)
    attention, norm = _attention(config), _norm(config)
    bias = config.boolean("add_bias_linear", default=False)
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("ffn_hidden_size"), gate="silu", up_bias=bias, down_bias=bias
    )
    layers = [pre_norm_layer(attention, feed_forward, norm)] * config.positive_int("num_layers")
    fused = config.boolean("multi_query_attention", default=False)
    return ModelDescription(decoder(config, layers, norm), _names(attention, by_projection=fused))


def _refuse(config: HFConfig) -> None:
    """ChatGLM 1, quantized weights, and flags that no published checkpoint sets."""
    config.demand("position_encoding_2d", False)
    config.demand("quantization_bit", 0)
    config.demand("pre_seq_len", None)
    config.demand("original_rope", True)
    config.demand("post_layer_norm", True)
    config.demand("apply_residual_connection_post_layernorm", False)


def _norm(config: HFConfig) -> NormConfig:
    kind = rms_norm if config.boolean("rmsnorm", default=True) else layer_norm
    return kind(config, "layernorm_epsilon", 1e-5)


def _attention(config: HFConfig) -> AttentionConfig:
    num_heads, head_dim = config.positive_int("num_attention_heads"), config.positive_int("kv_channels", default=128)
    is_shared = config.boolean("multi_query_attention", default=False)
    groups = config.positive_int("multi_query_group_num", default=1) if is_shared else num_heads
    num_heads, groups, head_dim = checked_heads(config, num_heads, groups, head_dim)
    bias = config.boolean("add_bias_linear", default=False)
    theta = 10000.0 * config.number("rope_ratio", default=1.0)
    return AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=groups,
        head_dim=head_dim,
        rotary=rotary_config(config, head_dim // 2, theta=theta),
        qkv_bias=bias or config.boolean("add_qkv_bias", default=False),
        output_bias=bias,
    )


def _names(attention: AttentionConfig, *, by_projection: bool) -> TensorNames:
    """:param by_projection: queries, keys and values are stored one after the other; else head by head."""
    heads, groups, head_dim = attention.num_heads, attention.num_kv_heads, attention.head_dim
    rotated = of_qkv(heads, groups, head_dim, half_rotation(head_dim, head_dim // 2))
    qkv = rotated if by_projection else grouped_qkv(heads, groups, head_dim).then(rotated)
    return TensorNames(
        layer="transformer.encoder.layers.{}.",
        layers={
            "attention.norm": "input_layernorm",
            "attention.qkv": From("self_attention.query_key_value", qkv),
            "attention.output": "self_attention.dense",
            "feed_forward.norm": "post_attention_layernorm",
            "feed_forward.gate_up": "mlp.dense_h_to_4h",
            "feed_forward.down": "mlp.dense_4h_to_h",
        },
        top={
            "embedding": "transformer.embedding.word_embeddings",
            "final_norm": "transformer.encoder.final_layernorm",
            "lm_head": "transformer.output_layer",
        },
        redundant=r"^transformer\.rotary_pos_emb\.inv_freq$",
    )
