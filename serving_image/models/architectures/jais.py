"""JAIS: GPT-2 with ALiBi, SwiGLU and the factors of maximal update parametrisation."""

from __future__ import annotations

from serving_image.models.alibi import alibi_slopes
from serving_image.models.architectures import gpt2
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
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import TRANSPOSE, scaled

ARCHITECTURES = ("JAISLMHeadModel",)

_SPELLINGS = gpt2.SPELLINGS | {
    "embeddings_scale": "mup_embeddings_scale",
    "scale_qk_dot_by_d": "mup_scale_qk_dot_by_d",
}
_GATE_UP: dict[str, Origin] = {
    "feed_forward.gate_up": (From("mlp.c_fc2", TRANSPOSE), From("mlp.c_fc", TRANSPOSE)),
}


def describe(config: HFConfig) -> ModelDescription:
    """Attention with linear biases, or over learned positions; the factor on logits goes into the last norm."""
    for key in ("add_cross_attention", "scale_attn_by_inverse_layer_idx"):
        config.demand(key, False)
    config.demand("scale_attn_weights", True)
    config.demand("alibi_scaling", None)
    config = config.respelled(_SPELLINGS)
    hidden_size = config.positive_int("hidden_size", default=768)
    num_heads = config.positive_int("num_attention_heads", default=12)
    heads = checked_heads(config, num_heads, num_heads, hidden_size // num_heads)
    positions = config.positive_int("max_position_embeddings", default=1024)
    has_alibi = config.choice("position_embedding_type", {"alibi": True, "learned": False}, "learned")
    by_size = config.boolean("mup_scale_qk_dot_by_d", default=False)
    attention = AttentionConfig(
        **heads._asdict(),
        scale=1 / heads.head_dim if by_size else None,
        qkv_bias=True,
        output_bias=True,
        alibi_slopes=alibi_slopes(num_heads) if has_alibi else None,
    )
    norm = NormConfig(kind="layer", epsilon=config.number("layer_norm_epsilon", default=1e-5), has_bias=True)
    final_norm = NormConfig(kind="layer", epsilon=norm.epsilon, has_bias=True, wide=True)
    layer = pre_norm_layer(attention, _feed_forward(config, hidden_size), norm)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(layer,) * config.positive_int("num_hidden_layers", default=12),
        final_norm=final_norm,
        max_position=positions,
        embedding=EmbeddingConfig(
            scale=config.number("mup_embeddings_scale", default=1.0),
            num_positions=None if has_alibi else positions,
        ),
        tie_word_embeddings=tied(config, default=True),
    )
    return ModelDescription(decoder, _names(_logit_scale(config)))


def _feed_forward(config: HFConfig, hidden_size: int) -> FeedForwardConfig:
    is_gated = config.string("activation_function", default="gelu_new") == "swiglu"
    return FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size", default=4 * hidden_size),
        gate="silu" if is_gated else None,
        activation=None if is_gated else plain_activation(config, "activation_function", "gelu_new"),
        up_bias=True,
        down_bias=True,
    )


def _logit_scale(config: HFConfig) -> float:
    """``width_scale`` in the first checkpoints, a product of two fields in later ones."""
    later = config.number("mup_output_alpha", default=1.0) * config.number("mup_width_scale", default=1.0)
    return config.number("width_scale", default=later)


def _names(logit_scale: float) -> TensorNames:
    return TensorNames(
        layer=gpt2.NAMES.layer,
        layers={**gpt2.NAMES.layers, **_GATE_UP},
        top=gpt2.TOP | {"final_norm": From("transformer.ln_f", scaled(logit_scale))},
        redundant=r"^transformer\.relative_pe\.slopes$",
        spellings=gpt2.BARE_NAMES,
    )
