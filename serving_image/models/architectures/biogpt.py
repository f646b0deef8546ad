"""BioGPT: learned positions, two rows late, and scaled words."""

from __future__ import annotations

from serving_image.models.architectures.opt import LAYERS, used_positions
from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    NormConfig,
    pre_norm_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, plain_activation, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import TensorNames

ARCHITECTURES = ("BioGptForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Attention with biases over learned positions. No norm reads ``layer_norm_eps``, in Transformers neither."""
    hidden_size = config.positive_int("hidden_size", default=1024)
    num_heads = config.positive_int("num_attention_heads", default=16)
    attention = AttentionConfig(
        **checked_heads(config, num_heads, num_heads, hidden_size // num_heads)._asdict(),
        qkv_bias=True,
        output_bias=True,
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size", default=4096),
        activation=plain_activation(config, default="gelu"),
        up_bias=True,
        down_bias=True,
    )
    norm = NormConfig(kind="layer", epsilon=1e-5, has_bias=True)
    is_scaled = config.boolean("scale_embedding", default=True)
    positions = config.positive_int("max_position_embeddings", default=1024)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(pre_norm_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers", default=24),
        final_norm=norm,
        max_position=positions,
        embedding=EmbeddingConfig(scale=hidden_size**0.5 if is_scaled else 1.0, num_positions=positions),
        tie_word_embeddings=tied(config, default=True),
    )
    names = TensorNames(
        layer="biogpt.layers.{}.",
        layers=LAYERS,
        top={
            "embedding": "biogpt.embed_tokens",
            "position_embedding": used_positions("biogpt.embed_positions", positions),
            "final_norm": "biogpt.layer_norm",
            "lm_head": "output_projection",
        },
    )
    return ModelDescription(decoder, names)
