"""GPT-BigCode: SantaCoder and StarCoder, GPT-2 with one key/value head for all queries."""

from __future__ import annotations

from serving_image.models.architectures.gpt2 import BARE_NAMES, NORMS, SPELLINGS, TOP
from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    pre_norm_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, layer_norm, plain_activation, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, TensorNames
from serving_image.models.transforms import grouped_qkv

ARCHITECTURES = ("GPTBigCodeForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Attention over learned positions; ``multi_query`` false gives every query head its keys and values."""
    config.demand("add_cross_attention", False)
    config = config.respelled(SPELLINGS)
    hidden_size = config.positive_int("hidden_size", default=768)
    num_heads = config.positive_int("num_attention_heads", default=12)
    kv_heads = 1 if config.boolean("multi_query", default=True) else num_heads
    heads = checked_heads(config, num_heads, kv_heads, hidden_size // num_heads)
    attention = AttentionConfig(
        **heads._asdict(),
        scale=None if config.boolean("scale_attn_weights", default=True) else 1.0,
        qkv_bias=True,
        output_bias=True,
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size", default=4 * hidden_size),
        activation=plain_activation(config, "activation_function", "gelu_pytorch_tanh"),
        up_bias=True,
        down_bias=True,
    )
    norm = layer_norm(config, "layer_norm_epsilon")
    positions = config.positive_int("max_position_embeddings", default=1024)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(pre_norm_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers", default=12),
        final_norm=norm,
        max_position=positions,
        embedding=EmbeddingConfig(num_positions=positions),
        tie_word_embeddings=tied(config, default=True),
    )
    names = TensorNames(
        layer="transformer.h.{}.",
        layers=NORMS
        | {
            "attention.qkv": From("attn.c_attn", grouped_qkv(*heads)),
            "attention.output": "attn.c_proj",
            "feed_forward.up": "mlp.c_fc",
            "feed_forward.down": "mlp.c_proj",
        },
        top=TOP,
        spellings=BARE_NAMES,
    )
    return ModelDescription(decoder, names)
