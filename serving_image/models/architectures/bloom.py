"""BLOOM and BLOOMZ: ALiBi, and a norm after the embedding."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.alibi import alibi_slopes
from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    pre_norm_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, layer_norm, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, TensorNames
from serving_image.models.transforms import grouped_qkv

ARCHITECTURES = ("BloomForCausalLM",)

_SPELLINGS = {"n_embed": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"}


def describe(config: HFConfig) -> ModelDescription:
    """Attention with linear biases; ``apply_residual_connection_post_layernorm`` adds to what was normalised."""
    config = config.respelled(_SPELLINGS)
    hidden_size = config.positive_int("hidden_size")
    num_heads = config.positive_int("num_attention_heads")
    attention = AttentionConfig(
        **checked_heads(config, num_heads, num_heads, hidden_size // num_heads)._asdict(),
        qkv_bias=True,
        output_bias=True,
        alibi_slopes=alibi_slopes(num_heads),
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=4 * hidden_size, activation="gelu_tanh", up_bias=True, down_bias=True
    )
    norm = layer_norm(config, "layer_norm_epsilon")
    layer = pre_norm_layer(attention, feed_forward, norm)
    if config.boolean("apply_residual_connection_post_layernorm", default=False):
        layer = tuple(replace(block, residual="normalised") for block in layer)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(layer,) * config.positive_int("num_hidden_layers"),
        final_norm=norm,
        max_position=config.positive_int("seq_length", default=2048),
        embedding=EmbeddingConfig(norm=norm),
        tie_word_embeddings=tied(config, default=True),
    )
    return ModelDescription(decoder, _names(num_heads, attention.head_dim))


def _names(num_heads: int, head_dim: int) -> TensorNames:
    return TensorNames(
        layer="transformer.h.{}.",
        layers={
            "attention.norm": "input_layernorm",
            "attention.qkv": From("self_attention.query_key_value", grouped_qkv(num_heads, num_heads, head_dim)),
            "attention.output": "self_attention.dense",
            "feed_forward.norm": "post_attention_layernorm",
            "feed_forward.up": "mlp.dense_h_to_4h",
            "feed_forward.down": "mlp.dense_4h_to_h",
        },
        top={
            "embedding": "transformer.word_embeddings",
            "embedding_norm": "transformer.word_embeddings_layernorm",
            "final_norm": "transformer.ln_f",
            "lm_head": "lm_head",
        },
        spellings={r"(?=(?:word_embeddings|word_embeddings_layernorm|h|ln_f)\.)": "transformer."},
    )
