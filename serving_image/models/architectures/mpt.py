"""MPT: ALiBi and layer norms, with or without biases, clipping and normalised queries and keys."""

from __future__ import annotations

import math

from serving_image.models.alibi import alibi_slopes
from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    NormConfig,
    QKNormConfig,
    pre_norm_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import Heads, checked_heads, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import scaled

ARCHITECTURES = ("MptForCausalLM", "MPTForCausalLM")

_SPELLINGS = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
_LAYERS: dict[str, Origin] = {
    "attention.norm": "norm_1",
    "attention.qkv": "attn.Wqkv",
    "attention.query_norm": "attn.q_ln",
    "attention.key_norm": "attn.k_ln",
    "attention.output": "attn.out_proj",
    "feed_forward.norm": "norm_2",
    "feed_forward.up": "ffn.up_proj",
    "feed_forward.down": "ffn.down_proj",
}
_TOP: dict[str, Origin] = {
    "embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "lm_head": "lm_head",
}
_LAYER_NORMS = {"low_precision_layernorm": "layer", "layernorm": "layer"}


def describe(config: HFConfig) -> ModelDescription:
    """The settings of LLM Foundry, of which Transformers' class keeps fewer, with other defaults."""
    is_foundry = config.architecture == "MPTForCausalLM"
    config = config.respelled(_SPELLINGS)
    config.demand("block_overrides", None)
    config.choice("norm_type", _LAYER_NORMS, "low_precision_layernorm")
    hidden_size = config.positive_int("hidden_size", default=2048)
    bias = not config.boolean("no_bias", default=not is_foundry)
    norm = NormConfig(kind="layer", epsilon=config.number("layer_norm_epsilon", default=1e-5), has_bias=bias)
    attention = _attention(config, bias, norm, has_alibi_by_default=not is_foundry)
    layer = pre_norm_layer(attention, _feed_forward(config, hidden_size, bias), norm)
    positions = config.positive_int("max_seq_len", default=2048)
    learns_positions = attention.alibi_slopes is None and config.boolean("learned_pos_emb", default=True)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(layer,) * config.positive_int("num_hidden_layers", default=24),
        final_norm=NormConfig(kind="layer", epsilon=norm.epsilon, has_bias=bias, wide=True),
        max_position=positions,
        embedding=EmbeddingConfig(num_positions=positions if learns_positions else None),
        tie_word_embeddings=tied(config, default=True),
    )
    final_norm: Origin = From("transformer.norm_f", scaled(_logit_scale(config, hidden_size)))
    names = TensorNames(layer="transformer.blocks.{}.", layers=_LAYERS, top=_TOP | {"final_norm": final_norm})
    return ModelDescription(decoder, names)


def _attention(config: HFConfig, bias: bool, norm: NormConfig, *, has_alibi_by_default: bool) -> AttentionConfig:
    settings = config.section("attn_config")
    for key in ("prefix_lm", "rope", "qk_gn"):
        settings.demand(key, False)
    settings.demand("sliding_window_size", -1)
    settings.demand("attn_logit_softcapping", None)
    heads = _heads(config, settings)
    has_alibi = settings.boolean("alibi", default=has_alibi_by_default)
    slopes = alibi_slopes(heads.num_heads, settings.number("alibi_bias_max", default=8.0))
    over_all_heads = QKNormConfig(kind="layer", epsilon=norm.epsilon, extent="projection", has_bias=bias)
    return AttentionConfig(
        **heads._asdict(),
        scale=settings.optional_number("softmax_scale"),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=over_all_heads if settings.boolean("qk_ln", default=False) else None,
        clip=settings.optional_number("clip_qkv"),
        alibi_slopes=slopes if has_alibi else None,
    )


def _heads(config: HFConfig, settings: HFConfig) -> Heads:
    num_heads = config.positive_int("num_attention_heads", default=16)
    grouped = settings.positive_int("kv_n_heads", default=num_heads)
    kv_heads = {"multihead_attention": num_heads, "multiquery_attention": 1, "grouped_query_attention": grouped}
    chosen = settings.choice("attn_type", kv_heads, "multihead_attention")
    return checked_heads(config, num_heads, chosen, config.positive_int("hidden_size", default=2048) // num_heads)


def _feed_forward(config: HFConfig, hidden_size: int, bias: bool) -> FeedForwardConfig:
    settings = config.section("ffn_config")
    settings.demand("ffn_type", "mptmlp")
    activation = settings.section("ffn_act_fn")
    activation.demand("name", "gelu")
    size = int(hidden_size * config.number("expansion_ratio", default=4.0))
    return FeedForwardConfig(
        intermediate_size=settings.positive_int("ffn_hidden_size", default=size),
        activation=activation.choice("approximate", {"none": "gelu", "tanh": "gelu_tanh"}, "none"),
        up_bias=bias,
        down_bias=bias,
    )


def _logit_scale(config: HFConfig, hidden_size: int) -> float:
    """``logit_scale`` is a number or the name of one; it goes into the last norm."""
    if config.is_string("logit_scale"):
        return config.choice("logit_scale", {"inv_sqrt_d_model": 1 / math.sqrt(hidden_size)}, "")
    return config.number("logit_scale", default=1.0)
