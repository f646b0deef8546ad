"""GPT-NeoX, Pythia and Dolly: attention and feed-forward in parallel, each through a norm of its own."""

from __future__ import annotations

from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    parallel_layer,
    pre_norm_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import heads, layer_norm, plain_activation, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config, rotary_dim
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import grouped_qkv

ARCHITECTURES = ("GPTNeoXForCausalLM",)

_SPELLINGS = {"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"}
_TOP: dict[str, Origin] = {
    "embedding": "gpt_neox.embed_in",
    "final_norm": "gpt_neox.final_layer_norm",
    "lm_head": "lm_head",
}


def describe(config: HFConfig) -> ModelDescription:
    """Partly rotated attention; ``use_parallel_residual`` false puts the blocks one after the other."""
    config = config.respelled(_SPELLINGS)
    hidden_size = config.positive_int("hidden_size", default=6144)
    num_heads, _, head_dim = heads(config)
    rotary = rotary_config(config, rotary_dim(config, head_dim, default=0.25))
    bias = config.boolean("attention_bias", default=True)
    attention = AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        rotary=rotary,
        qkv_bias=bias,
        output_bias=bias,
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size"),
        activation=plain_activation(config, default="gelu"),
        up_bias=True,
        down_bias=True,
    )
    norm = layer_norm(config, "layer_norm_eps")
    if config.boolean("use_parallel_residual", default=True):
        layer = parallel_layer(attention, feed_forward, norm, shared_norm=False)
    else:
        layer = pre_norm_layer(attention, feed_forward, norm)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(layer,) * config.positive_int("num_hidden_layers"),
        final_norm=norm,
        max_position=rotary.extended_max_position,
        tie_word_embeddings=tied(config, default=False),
    )
    return ModelDescription(decoder, _names(num_heads, head_dim))


def _names(num_heads: int, head_dim: int) -> TensorNames:
    return TensorNames(
        layer="gpt_neox.layers.{}.",
        layers={
            "attention.norm": "input_layernorm",
            "attention.qkv": From("attention.query_key_value", grouped_qkv(num_heads, num_heads, head_dim)),
            "attention.output": "attention.dense",
            "feed_forward.norm": "post_attention_layernorm",
            "feed_forward.up": "mlp.dense_h_to_4h",
            "feed_forward.down": "mlp.dense_4h_to_h",
        },
        top=_TOP,
        redundant=r"\.attention\.(masked_)?bias$",
        spellings={r"embed_out\.": "lm_head."},
    )
