"""Falcon 7B, 11B, 40B and 180B, and Falcon-RW: attention and feed-forward in parallel, or ALiBi in sequence.

ALiBi's slopes are what bfloat16 holds of them, as in training, and scaled like the scores; Transformers also rounds
every bias.
"""

from __future__ import annotations

import torch

from serving_image.models.alibi import alibi_slopes
from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    LayerConfig,
    parallel_layer,
    pre_norm_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import Heads, checked_heads, layer_norm, plain_activation, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import grouped_qkv

ARCHITECTURES = ("FalconForCausalLM", "RWForCausalLM")

_SPELLINGS = {
    "n_embed": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_head_kv": "num_kv_heads",
}
_TOP: dict[str, Origin] = {
    "embedding": "transformer.word_embeddings",
    "final_norm": "transformer.ln_f",
    "lm_head": "lm_head",
}
# The norms' names, which say how the blocks are joined: in parallel through one norm, through two, or in sequence.
_SHARED: dict[str, Origin] = {"attention.norm": "input_layernorm"}
_TWO: dict[str, Origin] = {"attention.norm": "ln_attn", "feed_forward.norm": "ln_mlp"}
_SEQUENTIAL: dict[str, Origin] = {
    "attention.norm": "input_layernorm",
    "feed_forward.norm": "post_attention_layernorm",
}


def describe(config: HFConfig) -> ModelDescription:
    """The four layouts by their flags."""
    config.demand("apply_residual_connection_post_layernorm", False)
    # The first 40B checkpoints have no flag for their layout, but they alone state key/value heads under this name.
    is_grouped = config.boolean("new_decoder_architecture", default="n_head_kv" in config)
    config = config.respelled(_SPELLINGS)
    heads = _heads(config, is_grouped)
    hidden_size = config.positive_int("hidden_size", default=4544)
    bias = config.boolean("bias", default=False)
    has_alibi = config.boolean("alibi", default=False)
    rotary = None if has_alibi else rotary_config(config, heads.head_dim)
    attention = AttentionConfig(
        **heads._asdict(),
        rotary=rotary,
        qkv_bias=bias,
        output_bias=bias,
        alibi_slopes=_slopes(heads) if has_alibi else None,
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("ffn_hidden_size", default=4 * hidden_size),
        activation=plain_activation(config, "activation", "gelu"),
        up_bias=bias,
        down_bias=bias,
    )
    norm = layer_norm(config, "layer_norm_epsilon")
    norms = _norms(config, is_grouped)
    layer: LayerConfig
    if norms == _SEQUENTIAL:
        layer = pre_norm_layer(attention, feed_forward, norm)
    else:
        layer = parallel_layer(attention, feed_forward, norm, shared_norm=norms == _SHARED)
    positions = config.positive_int("max_position_embeddings", default=2048)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(layer,) * config.positive_int("num_hidden_layers", default=32),
        final_norm=norm,
        max_position=rotary.extended_max_position if rotary else positions,
        tie_word_embeddings=tied(config, default=True),
    )
    return ModelDescription(decoder, _names(heads, norms))


def _norms(config: HFConfig, is_grouped: bool) -> dict[str, Origin]:
    count = config.positive_int("num_ln_in_parallel_attn", default=2 if is_grouped else 1)
    is_parallel = config.boolean("parallel_attn", default=True)
    if count > (2 if is_grouped else 1) or (is_grouped and not is_parallel):
        raise config.error(
            f"num_ln_in_parallel_attn {count} with parallel_attn {is_parallel} is not a layout that Falcon has"
        )
    if not is_parallel:
        return _SEQUENTIAL
    return _TWO if count == 2 else _SHARED


def _heads(config: HFConfig, is_grouped: bool) -> Heads:
    num_heads = config.positive_int("num_attention_heads", default=71)
    if is_grouped:
        kv_heads = config.positive_int("num_kv_heads", default=num_heads)
    else:
        kv_heads = 1 if config.boolean("multi_query", default=True) else num_heads
    return checked_heads(config, num_heads, kv_heads, config.positive_int("hidden_size", default=4544) // num_heads)


def _slopes(heads: Heads) -> tuple[float, ...]:
    rounded = torch.tensor(alibi_slopes(heads.num_heads), dtype=torch.bfloat16)
    return tuple(slope * heads.head_dim**-0.5 for slope in rounded.tolist())


def _names(heads: Heads, norms: dict[str, Origin]) -> TensorNames:
    return TensorNames(
        layer="transformer.h.{}.",
        layers=norms
        | {
            "attention.qkv": From("self_attention.query_key_value", grouped_qkv(*heads)),
            "attention.output": "self_attention.dense",
            "feed_forward.up": "mlp.dense_h_to_4h",
            "feed_forward.down": "mlp.dense_4h_to_h",
        },
        top=_TOP,
    )
