"""GPT-J: rotated neighbours, and attention and feed-forward in parallel through one norm."""

from __future__ import annotations

from serving_image.models.architectures.gpt2 import SPELLINGS
from serving_image.models.config import AttentionConfig, DecoderConfig, FeedForwardConfig, parallel_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import Heads, checked_heads, layer_norm, plain_activation, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary import RotaryConfig
from serving_image.models.tensor_names import From, Origin, TensorNames
from serving_image.models.transforms import half_rotation

ARCHITECTURES = ("GPTJForCausalLM",)

LAYERS: dict[str, Origin] = {
    "attention.norm": "ln_1",
    "attention.output": "attn.out_proj",
    "feed_forward.up": "mlp.fc_in",
    "feed_forward.down": "mlp.fc_out",
}
TOP: dict[str, Origin] = {"embedding": "transformer.wte", "final_norm": "transformer.ln_f", "lm_head": "lm_head"}


def describe(config: HFConfig) -> ModelDescription:
    """As :func:`decoder_config` says, with projections of their own."""
    config = config.respelled(SPELLINGS)
    heads = attention_heads(config)
    reorder = half_rotation(heads.head_dim, rotated_elements(config, heads))
    projections = (From("attn.q_proj", reorder), From("attn.k_proj", reorder), "attn.v_proj")
    names = TensorNames(layer="transformer.h.{}.", layers=LAYERS | {"attention.qkv": projections}, top=TOP)
    return ModelDescription(decoder_config(config), names)


def attention_heads(config: HFConfig) -> Heads:
    """:raises StartupError: heads do not divide."""
    num_heads = config.positive_int("num_attention_heads", default=16)
    return checked_heads(config, num_heads, num_heads, config.positive_int("hidden_size", default=4096) // num_heads)


def rotated_elements(config: HFConfig, heads: Heads) -> int:
    """:raises StartupError: ``rotary_dim`` does not fit the heads."""
    rotated = config.positive_int("rotary_dim", default=64)
    if rotated > heads.head_dim or rotated % 2:
        raise config.error(f"rotary_dim {rotated} does not fit heads of size {heads.head_dim}")
    return rotated


def decoder_config(config: HFConfig) -> DecoderConfig:
    """Partly rotated attention without biases, beside a feed-forward block with them.

    :param config: under most families' names.
    """
    hidden_size = config.positive_int("hidden_size", default=4096)
    positions = config.positive_int("max_position_embeddings", default=2048)
    heads = attention_heads(config)
    rotary = RotaryConfig(head_dim=rotated_elements(config, heads), theta=10000.0, max_position=positions)
    attention = AttentionConfig(**heads._asdict(), rotary=rotary)
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size", default=4 * hidden_size),
        activation=plain_activation(config, "activation_function", "gelu_new"),
        up_bias=True,
        down_bias=True,
    )
    norm = layer_norm(config, "layer_norm_epsilon")
    return DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(parallel_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers", default=28),
        final_norm=norm,
        max_position=positions,
        tie_word_embeddings=tied(config, default=False),
        lm_head_bias=True,
    )
