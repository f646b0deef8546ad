"""GPT-Neo: GPT-2 with scores that are not scaled, and a window on every other layer."""

from __future__ import annotations

from serving_image.models.architectures.gpt2 import NORMS, TOP
from serving_image.models.config import (
    AttentionConfig,
    DecoderConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    pre_norm_layer,
)
from serving_image.models.description import ModelDescription
from serving_image.models.fields import checked_heads, layer_norm, plain_activation, tied
from serving_image.models.hf_config import HFConfig
from serving_image.models.tensor_names import Origin, TensorNames

ARCHITECTURES = ("GPTNeoForCausalLM",)

_SPELLINGS = {"num_layers": "num_hidden_layers", "num_heads": "num_attention_heads"}
_LAYERS: dict[str, Origin] = NORMS | {
    "attention.qkv": ("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
    "attention.output": "attn.attention.out_proj",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
_NAMES = TensorNames(
    layer="transformer.h.{}.", layers=_LAYERS, top=TOP, redundant=r"\.attn\.attention\.(masked_)?bias$"
)


def describe(config: HFConfig) -> ModelDescription:
    """``attention_layers`` says which layers are local."""
    config = config.respelled(_SPELLINGS)
    hidden_size = config.positive_int("hidden_size", default=2048)
    num_heads = config.positive_int("num_attention_heads", default=16)
    heads = checked_heads(config, num_heads, num_heads, hidden_size // num_heads)
    windows = {"global": None, "local": config.positive_int("window_size", default=256)}
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size", default=4 * hidden_size),
        activation=plain_activation(config, "activation_function", "gelu_new"),
        up_bias=True,
        down_bias=True,
    )
    norm = layer_norm(config, "layer_norm_epsilon")
    layers = []
    for kind in _layer_kinds(config):
        if kind not in windows:
            raise config.error(f'attention_layers has "{kind}"; supported: {", ".join(windows)}')
        attention = AttentionConfig(**heads._asdict(), scale=1.0, output_bias=True, window=windows[kind])
        layers.append(pre_norm_layer(attention, feed_forward, norm))
    positions = config.positive_int("max_position_embeddings", default=2048)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=tuple(layers),
        final_norm=norm,
        max_position=positions,
        embedding=EmbeddingConfig(num_positions=positions),
        tie_word_embeddings=tied(config, default=True),
    )
    return ModelDescription(decoder, _NAMES)


def _layer_kinds(config: HFConfig) -> tuple[str, ...]:
    """``attention_layers``, which ``attention_types`` abbreviates; alternating without both."""
    layers = config.positive_int("num_hidden_layers", default=24)
    kinds = config.strings("attention_layers")
    if not kinds and "attention_types" in config:
        raise config.error("attention_types stands without attention_layers, which lists every layer")
    kinds = kinds or ("global", "local") * (layers // 2)
    if len(kinds) != layers:
        raise config.error(f"attention_layers has {len(kinds)} entries for {layers} layers")
    return kinds
