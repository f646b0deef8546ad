"""StarCoder2: rotary attention with biases, layer norms and perhaps a window."""

from __future__ import annotations

from serving_image.models.architectures import llama
from serving_image.models.config import AttentionConfig, DecoderConfig, FeedForwardConfig, pre_norm_layer
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, layer_norm, plain_activation, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary_settings import rotary_config
from serving_image.models.tensor_names import TensorNames

ARCHITECTURES = ("Starcoder2ForCausalLM",)

_NAMES = TensorNames(
    layer="model.layers.{}.",
    layers=llama.ATTENTION
    | {
        "feed_forward.norm": "post_attention_layernorm",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    },
    top=llama.TOP,
)


def describe(config: HFConfig) -> ModelDescription:
    """Grouped rotary attention and a plain feed-forward block."""
    config.demand("norm_type", "layer_norm")
    config.demand("mlp_type", "default")
    hidden_size = config.positive_int("hidden_size")
    num_heads = config.positive_int("num_attention_heads")
    num_kv_heads = config.positive_int("num_key_value_heads", default=2)
    head_dim = config.positive_int("head_dim", default=max(1, hidden_size // num_heads))
    heads = checked_heads(config, num_heads, num_kv_heads, head_dim)
    rotary = rotary_config(config, head_dim, max_position=config.positive_int("max_position_embeddings", default=4096))
    bias = config.boolean("use_bias", default=True)
    attention = AttentionConfig(
        **heads._asdict(),
        rotary=rotary,
        qkv_bias=bias,
        output_bias=bias,
        window=config.optional_int("sliding_window"),
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size"),
        activation=plain_activation(config, default="gelu_pytorch_tanh"),
        up_bias=bias,
        down_bias=bias,
    )
    norm = layer_norm(config, "norm_epsilon")
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(pre_norm_layer(attention, feed_forward, norm),) * config.positive_int("num_hidden_layers"),
        final_norm=norm,
        max_position=rotary.extended_max_position,
        tie_word_embeddings=tied(config, default=True),
    )
    return ModelDescription(decoder, _NAMES)
