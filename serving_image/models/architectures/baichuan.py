"""Baichuan 1 and 2: Llama with one fused projection; the 13B models have ALiBi, Baichuan 2 a normalised output layer.

No field of ``config.json`` says which. Rotary models alone state ``max_position_embeddings``: those with ALiBi have a
``model_max_length`` only. Baichuan 2 has its vocabulary of 125,696, or, saved anew with another, ``z_loss_weight``,
which Baichuan 1 lacks.
"""

from __future__ import annotations

from serving_image.models.alibi import alibi_slopes
from serving_image.models.architectures import llama
from serving_image.models.config import AttentionConfig, DecoderConfig, FeedForwardConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, gated_activation, rms_norm, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import UNIT_ROWS

ARCHITECTURES = ("BaiChuanForCausalLM", "BaichuanForCausalLM")

_BAICHUAN_2_VOCABULARY = 125696
_LAYERS: dict[str, Origin] = llama.ATTENTION | {"attention.qkv": "self_attn.W_pack"} | llama.FEED_FORWARD


def describe(config: HFConfig) -> ModelDescription:
    """Pre-normalised attention without grouped heads, and SwiGLU."""
    hidden_size = config.positive_int("hidden_size")
    num_heads = config.positive_int("num_attention_heads")
    heads = checked_heads(config, num_heads, num_heads, hidden_size // num_heads)
    is_rotary = config.architecture == "BaiChuanForCausalLM" or "max_position_embeddings" in config
    rotary = rotary_config(config, heads.head_dim) if is_rotary else None
    attention = AttentionConfig(
        **heads._asdict(), rotary=rotary, alibi_slopes=None if is_rotary else alibi_slopes(num_heads)
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size"), gate=gated_activation(config)
    )
    norm = rms_norm(config)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(pre_norm_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers"),
        final_norm=norm,
        max_position=rotary.extended_max_position if rotary else config.positive_int("model_max_length", default=4096),
        tie_word_embeddings=tied(config, default=False),
    )
    is_second = decoder.vocab_size == _BAICHUAN_2_VOCABULARY or "z_loss_weight" in config
    head: Origin = From("lm_head", UNIT_ROWS) if is_second else "lm_head"
    return ModelDescription(
        decoder, TensorNames(layer=llama.NAMES.layer, layers=_LAYERS, top=llama.TOP | {"lm_head": head})
    )
