"""OPT and Galactica: learned positions, two rows late; the 350M model normalises late and projects words."""

from __future__ import annotations

from serving_image.models.config import (
    AttentionConfig,
    BlockConfig,
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
from serving_image.models.transforms import rows

ARCHITECTURES = ("OPTForCausalLM",)

_PADDING = 2
LAYERS: dict[str, Origin] = {
    "attention.norm": "self_attn_layer_norm",
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.output": "self_attn.out_proj",
    "feed_forward.norm": "final_layer_norm",
    "feed_forward.up": "fc1",
    "feed_forward.down": "fc2",
}
"""Fairseq's names."""
_LAYERS: dict[str, Origin] = LAYERS | {
    "attention.stream_norm": "self_attn_layer_norm",
    "feed_forward.stream_norm": "final_layer_norm",
}


def describe(config: HFConfig) -> ModelDescription:
    """Attention over learned positions, normalised before or after."""
    hidden_size = config.positive_int("hidden_size", default=768)
    num_heads = config.positive_int("num_attention_heads", default=12)
    bias = config.boolean("enable_bias", default=True)
    attention = AttentionConfig(
        **checked_heads(config, num_heads, num_heads, hidden_size // num_heads)._asdict(),
        qkv_bias=bias,
        output_bias=bias,
    )
    feed_forward = FeedForwardConfig(
        intermediate_size=config.positive_int("ffn_dim", default=3072),
        activation=plain_activation(config, "activation_function", "relu"),
        up_bias=bias,
        down_bias=bias,
    )
    affine = config.boolean("layer_norm_elementwise_affine", default=True)
    norm = NormConfig(kind="layer", epsilon=1e-5, has_weight=affine, has_bias=affine)
    norm_first = config.boolean("do_layer_norm_before", default=True)
    if norm_first:
        layer = pre_norm_layer(attention, feed_forward, norm)
    else:
        blocks = (BlockConfig(operation=operation, stream_norm=norm) for operation in (attention, feed_forward))
        layer = tuple(blocks)
    final_norm = norm_first and not config.boolean("_remove_final_layer_norm", default=False)
    width = config.positive_int("word_embed_proj_dim", default=hidden_size)
    positions = config.positive_int("max_position_embeddings", default=2048)
    decoder = DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=hidden_size,
        layers=(layer,) * config.positive_int("num_hidden_layers", default=12),
        final_norm=norm if final_norm else None,
        max_position=positions,
        embedding=EmbeddingConfig(num_positions=positions, width=None if width == hidden_size else width),
        tie_word_embeddings=tied(config, default=True),
    )
    return ModelDescription(decoder, _names(positions))


def used_positions(module: str, positions: int) -> From:
    """The table of learned positions without the rows for padding: position 0 is row 2."""
    return From(module, rows(_PADDING, _PADDING + positions, _PADDING + positions))


def _names(positions: int) -> TensorNames:
    return TensorNames(
        layer="model.decoder.layers.{}.",
        layers=_LAYERS,
        top={
            "embedding": "model.decoder.embed_tokens",
            "embedding_projection": "model.decoder.project_in",
            "position_embedding": used_positions("model.decoder.embed_positions", positions),
            "final_norm": "model.decoder.final_layer_norm",
            "output_projection": "model.decoder.project_out",
            "lm_head": "lm_head",
        },
        spellings={r"decoder\.": "model.decoder."},
    )
