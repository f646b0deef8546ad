"""XGLM: positions are a table of sines that no checkpoint stores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from serving_image.models.architectures.opt import LAYERS
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
from serving_image.models.tensor_names import Computed, TensorNames

ARCHITECTURES = ("XGLMForCausalLM",)

_SPELLINGS = {
    "d_model": "hidden_size",
    "num_layers": "num_hidden_layers",
    "attention_heads": "num_attention_heads",
    "ffn_dim": "intermediate_size",
    "activation_function": "hidden_act",
}
_PADDING = 2
"""Position 0 is row 2 of the table, as in OPT."""


def describe(config: HFConfig) -> ModelDescription:
    """Attention with biases over sines."""
    config.demand("add_cross_attention", False)
    decoder = scaled_words_decoder(config.respelled(_SPELLINGS), positions=2048)
    padding = config.count("pad_token_id", default=1)
    return ModelDescription(decoder, _names(decoder.max_position, decoder.hidden_size, padding))


def scaled_words_decoder(config: HFConfig, *, positions: int) -> DecoderConfig:
    """Layer norms, biases everywhere, a table of positions, and words' vectors that are scaled up.

    :param positions: rows of the table where the configuration does not say.
    """
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
    positions = config.positive_int("max_position_embeddings", default=positions)
    return DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(pre_norm_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers", default=24),
        final_norm=norm,
        max_position=positions,
        embedding=EmbeddingConfig(scale=hidden_size**0.5 if is_scaled else 1.0, num_positions=positions),
        tie_word_embeddings=tied(config, default=True),
    )


def _names(positions: int, hidden_size: int, zeroed: int) -> TensorNames:
    return TensorNames(
        layer="model.layers.{}.",
        layers=LAYERS,
        top={
            "embedding": "model.embed_tokens",
            "position_embedding.weight": Computed(lambda: _sines(positions, hidden_size, zeroed)),
            "final_norm": "model.layer_norm",
            "lm_head": "lm_head",
        },
        redundant=r"^model\.embed_positions\.",
    )


def _sines(positions: int, hidden_size: int, zeroed: int) -> Tensor:
    """``[positions, hidden]``: sines, then cosines, of wavelengths from 2π to 20,000π, as in Tensor2Tensor.

    :param zeroed: the row of the table that is zero: Fairseq takes the id of the padding token for it.
    """
    half = hidden_size // 2
    frequencies = torch.exp(torch.arange(half).float() * (-math.log(10000.0) / (half - 1)))
    angles = torch.arange(_PADDING + positions).float()[:, None] * frequencies
    table = torch.cat((angles.sin(), angles.cos()), dim=1)
    table[zeroed : zeroed + 1] = 0
    return table[_PADDING:]
