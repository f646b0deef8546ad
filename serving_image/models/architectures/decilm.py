"""DeciLM and Nemotron-NAS: Llama whose layers differ in heads and widths, or lack one of their blocks."""

from __future__ import annotations

from serving_image.models.architectures import llama
from serving_image.models.config import AttentionConfig, BlockConfig, DecoderConfig, FeedForwardConfig, LayerConfig
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, gated_activation, rms_norm, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary import RotaryConfig
from serving_image.models.rotary_settings import rotary_config

ARCHITECTURES = ("DeciLMForCausalLM",)

_WIDTH_STEP = 256
_OTHER_ATTENTION = ("window_length", "num_sink_tokens", "mamba", "llama4", "sparsify")
_OTHER_FEED_FORWARD = ("moe", "sparsify")


def describe(config: HFConfig) -> ModelDescription:
    """One entry of ``block_configs`` for each layer; ``num_key_value_heads_per_layer`` in DeciLM-7B."""
    num_heads = config.positive_int("num_attention_heads")
    head_dim = config.positive_int("head_dim", default=max(1, config.positive_int("hidden_size") // num_heads))
    rotary = rotary_config(config, head_dim)
    blocks = config.sections("block_configs")
    if blocks:
        layers = tuple(_layer(config, block, rotary) for block in blocks)
    else:
        layers = tuple(
            _uniform_layer(config, heads, rotary) for heads in config.integers("num_key_value_heads_per_layer")
        )
    if len(layers) != config.positive_int("num_hidden_layers"):
        raise config.error(
            "block_configs or num_key_value_heads_per_layer must have one entry for each of num_hidden_layers"
        )
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=config.positive_int("hidden_size"),
        layers=layers,
        final_norm=rms_norm(config),
        max_position=rotary.extended_max_position,
        tie_word_embeddings=tied(config, default=False),
    )
    if not decoder.attentions:
        raise config.error("no layer has attention")
    return ModelDescription(decoder, llama.NAMES)


def _uniform_layer(config: HFConfig, kv_heads: int, rotary: RotaryConfig) -> LayerConfig:
    size = config.positive_int("intermediate_size")
    norm = rms_norm(config)
    return (
        BlockConfig(operation=_attention(config, kv_heads, rotary), norm=norm),
        BlockConfig(operation=_feed_forward(config, config, size), norm=norm),
    )


def _layer(config: HFConfig, block: HFConfig, rotary: RotaryConfig) -> LayerConfig:
    attention, feed_forward = block.section("attention"), block.section("ffn")
    norm = rms_norm(config)
    layer = []
    if _is_active(attention, _OTHER_ATTENTION):
        group = attention.positive_int("n_heads_in_group")
        heads = config.positive_int("num_attention_heads")
        if heads % group:
            raise config.error(f"n_heads_in_group {group} does not divide {heads} attention heads")
        layer.append(BlockConfig(operation=_attention(config, heads // group, rotary), norm=norm))
    if _is_active(feed_forward, _OTHER_FEED_FORWARD):
        feed_forward.demand("gated", True)
        layer.append(
            BlockConfig(operation=_feed_forward(config, feed_forward, _width(config, feed_forward)), norm=norm)
        )
    return tuple(layer)


def _is_active(block: HFConfig, others: tuple[str, ...]) -> bool:
    """:raises StartupError: the block is neither what Llama has nor nothing."""
    if block.boolean("no_op", default=False):
        return False
    block.demand("replace_with_linear", False)
    for key in others:
        block.demand(key, None)
    return True


def _width(config: HFConfig, feed_forward: HFConfig) -> int:
    """``ffn_mult`` times two thirds of the hidden size, rounded up to a multiple of 256."""
    stated = feed_forward.optional_int("intermediate_size")
    if stated is not None:
        return stated
    width = int(2 * feed_forward.number("ffn_mult") * config.positive_int("hidden_size") / 3)
    return -(-width // _WIDTH_STEP) * _WIDTH_STEP


def _attention(config: HFConfig, kv_heads: int, rotary: RotaryConfig) -> AttentionConfig:
    bias = config.boolean("attention_bias", default=False)
    heads = checked_heads(config, config.positive_int("num_attention_heads"), kv_heads, rotary.head_dim)
    return AttentionConfig(**heads._asdict(), rotary=rotary, qkv_bias=bias, output_bias=bias)


def _feed_forward(config: HFConfig, feed_forward: HFConfig, size: int) -> FeedForwardConfig:
    bias = config.boolean("mlp_bias", default=False)
    own = feed_forward if "hidden_act" in feed_forward else config
    return FeedForwardConfig(intermediate_size=size, gate=gated_activation(own), up_bias=bias, down_bias=bias)
