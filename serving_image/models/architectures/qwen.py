"""Qwen 1: Llama with one fused, biased projection and the gate second.

It serves contexts up to ``seq_length``, what the model was trained for: its logarithmic scaling of queries and its
stretched rotary embedding (``use_logn_attn``, ``use_dynamic_ntk``) act beyond that only.
"""

from __future__ import annotations

from serving_image.models.config import AttentionConfig, DecoderConfig, FeedForwardConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, rms_norm, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary import RotaryConfig
from serving_image.models.tensor_names import Origin, TensorNames

ARCHITECTURES = ("QWenLMHeadModel",)

_LAYERS: dict[str, Origin] = {
    "attention.norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward.norm": "ln_2",
    "feed_forward.gate_up": ("mlp.w2", "mlp.w1"),
    "feed_forward.down": "mlp.c_proj",
}
_NAMES = TensorNames(
    layer="transformer.h.{}.",
    layers=_LAYERS,
    top={"embedding": "transformer.wte", "final_norm": "transformer.ln_f", "lm_head": "lm_head"},
)


def describe(config: HFConfig) -> ModelDescription:
    """``intermediate_size`` counts the gate and what it gates."""
    config.demand("visual", None)
    hidden_size = config.positive_int("hidden_size", default=4096)
    num_heads = config.positive_int("num_attention_heads", default=32)
    heads = checked_heads(config, num_heads, num_heads, config.positive_int("kv_channels", default=128))
    positions = config.positive_int("seq_length", default=8192)
    rotary = RotaryConfig(
        head_dim=int(heads.head_dim * config.number("rotary_pct", default=1.0)),
        theta=config.number("rotary_emb_base", default=10000.0),
        max_position=positions,
    )
    bias = not config.boolean("no_bias", default=True)
    attention = AttentionConfig(
        **heads._asdict(),
        scale=None if config.boolean("scale_attn_weights", default=True) else 1.0,
        rotary=rotary,
        qkv_bias=True,
        output_bias=bias,
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size", default=22016) // 2,
        gate="silu",
        up_bias=bias,
        down_bias=bias,
    )
    norm = rms_norm(config, "layer_norm_epsilon")
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(pre_norm_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers", default=32),
        final_norm=norm,
        max_position=positions,
        tie_word_embeddings=tied(config, default=False),
    )
    return ModelDescription(decoder, _NAMES)
