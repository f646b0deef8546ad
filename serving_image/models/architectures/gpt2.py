"""GPT-2: learned positions, layer norms, and linear layers stored as ``Conv1D``."""

from __future__ import annotations

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
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import TRANSPOSE

ARCHITECTURES = ("GPT2LMHeadModel",)

SPELLINGS = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "n_inner": "intermediate_size",
}
"""GPT-2's names for fields that most families call otherwise."""
BARE_NAMES = {r"(?=(?:wte|wpe|h|ln_f)\.)": "transformer."}
"""Checkpoints of the model without its output layer have no prefix."""

_CONV1D: dict[str, Origin] = {
    "attention.qkv": From("attn.c_attn", TRANSPOSE),
    "attention.output": From("attn.c_proj", TRANSPOSE),
    "feed_forward.up": From("mlp.c_fc", TRANSPOSE),
    "feed_forward.down": From("mlp.c_proj", TRANSPOSE),
}
TOP: dict[str, Origin] = {
    "embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "final_norm": "transformer.ln_f",
    "lm_head": "lm_head",
}
NORMS: dict[str, Origin] = {"attention.norm": "ln_1", "feed_forward.norm": "ln_2"}
NAMES = TensorNames(layer="transformer.h.{}.", layers={**NORMS, **_CONV1D}, top=TOP, spellings=BARE_NAMES)


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised attention over learned positions."""
    config.demand("add_cross_attention", False)
    config = config.respelled(SPELLINGS)
    hidden_size = config.positive_int("hidden_size", default=768)
    num_heads = config.positive_int("num_attention_heads", default=12)
    heads = checked_heads(config, num_heads, num_heads, hidden_size // num_heads)
    scale = heads.head_dim**-0.5 if config.boolean("scale_attn_weights", default=True) else 1.0
    scale_falls = config.boolean("scale_attn_by_inverse_layer_idx", default=False)
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size", default=4 * hidden_size),
        activation=plain_activation(config, "activation_function", "gelu_new"),
        up_bias=True,
        down_bias=True,
    )
    norm = layer_norm(config, "layer_norm_epsilon")
    layers = []
    for index in range(config.positive_int("num_hidden_layers", default=12)):
        attention = AttentionConfig(
            **heads._asdict(),
            scale=scale / (index + 1) if scale_falls else scale,
            qkv_bias=True,
            output_bias=True,
        )
        layers.append(pre_norm_layer(attention, feed_forward, norm))
    positions = config.positive_int("max_position_embeddings", default=1024)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=tuple(layers),
        final_norm=norm,
        max_position=positions,
        embedding=EmbeddingConfig(num_positions=positions),
        tie_word_embeddings=tied(config, default=True),
    )
    return ModelDescription(decoder, NAMES)
