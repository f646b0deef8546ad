"""Persimmon: partly rotated attention over normalised queries and keys, and squared ReLU."""

from __future__ import annotations

from serving_image.models.assembly import plain_feed_forward
from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    QKNormConfig,
    pre_norm_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import Heads, checked_heads, layer_norm, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config, rotary_dim
from serving_image.models.tensor_names import From, TensorNames
from serving_image.models.transforms import grouped_qkv

ARCHITECTURES = ("PersimmonForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Biases everywhere but in the output layer."""
    hidden_size = config.positive_int("hidden_size")
    num_heads = config.positive_int("num_attention_heads")
    heads = checked_heads(config, num_heads, num_heads, hidden_size // num_heads)
    positions = config.positive_int("max_position_embeddings", default=16384)
    rotary = rotary_config(config, rotary_dim(config, heads.head_dim, default=0.5), max_position=positions)
    norm = layer_norm(config, "layer_norm_eps")
    head_norm = QKNormConfig(kind="layer", epsilon=norm.epsilon, has_bias=True)
    attention = AttentionConfig(
        **heads._asdict(),
        rotary=rotary,
        qkv_bias=True,
        output_bias=True,
        qk_norm=head_norm if config.boolean("qk_layernorm", default=True) else None,
    )
    feed_forward = plain_feed_forward(config, bias=True, default="relu2")
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(pre_norm_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers"),
        final_norm=norm,
        max_position=rotary.extended_max_position,
        tie_word_embeddings=tied(config, default=False),
    )
    return ModelDescription(decoder, _names(heads))


def _names(heads: Heads) -> TensorNames:
    return TensorNames(
        layer="model.layers.{}.",
        layers={
            "attention.norm": "input_layernorm",
            "attention.qkv": From("self_attn.query_key_value", grouped_qkv(*heads)),
            "attention.query_norm": "self_attn.q_layernorm",
            "attention.key_norm": "self_attn.k_layernorm",
            "attention.output": "self_attn.dense",
            "feed_forward.norm": "post_attention_layernorm",
            "feed_forward.up": "mlp.dense_h_to_4h",
            "feed_forward.down": "mlp.dense_4h_to_h",
        },
        top={"embedding": "model.embed_tokens", "final_norm": "model.final_layernorm", "lm_head": "lm_head"},
    )
