"""Parts of a decoder, out of the fields that Llama's configuration made common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serving_image.models.config import (
    AttentionConfig,
    BlockConfig,
    DecoderConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    LatentAttentionConfig,
    LayerConfig,
    NormConfig,
    Operation,
)
from serving_image.models.fields import gated_activation, heads, plain_activation
from serving_image.models.hf_config import HFConfig
from serving_image.models.rotary import RotaryConfig
from serving_image.models.rotary_settings import rotary_config

FULL, SLIDING = "full_attention", "sliding_attention"
"""The types of layer that ``layer_types`` lists."""

PLAIN_EMBEDDING = EmbeddingConfig()


def attention(
    config: HFConfig,
    *,
    rotary: RotaryConfig | None = None,
    default_theta: float = 10000.0,
    default_head_dim: int | None = None,
    bias: bool = False,
    output_bias: bool | None = None,
) -> AttentionConfig:
    """Rotary attention.

    :param rotary: None: of whole heads, by the configuration.
    :param bias: of queries, keys and values; ``output_bias`` None: of the output too.
    """
    num_heads, num_kv_heads, head_dim = heads(config, default_head_dim)
    return AttentionConfig(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rotary=rotary or rotary_config(config, head_dim, default_theta=default_theta),
        qkv_bias=bias,
        output_bias=bias if output_bias is None else output_bias,
    )


def gated_feed_forward(
    config: HFConfig, *, bias: bool = False, activation: str = "hidden_act", default: str = "silu"
) -> FeedForwardConfig:
    """A gated block; ``activation`` is the field that names the gate's, ``default`` what it is where that is absent."""
    return FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size"),
        gate=gated_activation(config, activation, default),
        up_bias=bias,
        down_bias=bias,
    )


def plain_feed_forward(config: HFConfig, *, bias: bool = False, default: str = "gelu_new") -> FeedForwardConfig:
    """A block without a gate; ``default`` is its activation where the configuration does not say."""
    return FeedForwardConfig(
        intermediate_size=config.positive_int("intermediate_size"),
        activation=plain_activation(config, default=default),
        up_bias=bias,
        down_bias=bias,
    )


def sandwich_layer(first: Operation, second: Operation, norm: NormConfig) -> LayerConfig:
    """Normalise, compute, normalise, add; twice."""
    return tuple(BlockConfig(operation=operation, norm=norm, output_norm=norm) for operation in (first, second))


def post_norm_layer(first: Operation, second: Operation, norm: NormConfig) -> LayerConfig:
    """Compute, normalise, add; twice."""
    return tuple(BlockConfig(operation=operation, output_norm=norm) for operation in (first, second))


def num_layers(config: HFConfig) -> int:
    """``num_hidden_layers``."""
    return config.positive_int("num_hidden_layers")


def layer_types(config: HFConfig, default: Sequence[str]) -> tuple[str, ...]:
    """``layer_types``, one for each layer: :data:`FULL` or :data:`SLIDING`.

    :param default: where the configuration does not list them.
    :raises StartupError: they are not as many as layers, or there is another type.
    """
    types = config.strings("layer_types") or tuple(default)
    if len(types) != num_layers(config):
        raise config.error(f"layer_types lists {len(types)} layers of {num_layers(config)}")
    if unknown := sorted(set(types) - {FULL, SLIDING}):
        raise config.error(f"layer_types has {', '.join(unknown)}; supported: {FULL}, {SLIDING}")
    return types


def layer_windows(config: HFConfig, window: int | None, slides: Callable[[int], bool]) -> tuple[int | None, ...]:
    """Each layer's window: ``window`` where it slides, else None.

    :param slides: by layer number, where ``layer_types`` is absent.
    :raises StartupError: as :func:`layer_types`, or a layer slides without a window.
    """
    types = layer_types(config, [SLIDING if slides(layer) else FULL for layer in range(num_layers(config))])
    if window is None and SLIDING in types:
        raise config.error("layers slide, but there is no sliding_window")
    return tuple(window if kind == SLIDING else None for kind in types)


def decoder(
    config: HFConfig,
    layers: Sequence[LayerConfig],
    norm: NormConfig,
    *,
    tied: bool = False,
    embedding: EmbeddingConfig = PLAIN_EMBEDDING,
    logit_softcap: float | None = None,
) -> DecoderConfig:
    """The whole.

    :param tied: ``tie_word_embeddings`` where the configuration does not say.
    """
    operations = [block.operation for layer in layers for block in layer]
    attentions = [part for part in operations if isinstance(part, (AttentionConfig, LatentAttentionConfig))]
    rotaries = [part.rotary for part in attentions if part.rotary is not None]
    max_position = config.positive_int("max_position_embeddings", default=2048)
    return DecoderConfig(
        vocab_size=config.positive_int("vocab_size"),
        hidden_size=config.positive_int("hidden_size"),
        layers=tuple(layers),
        final_norm=norm,
        max_position=min((rotary.extended_max_position for rotary in rotaries), default=max_position),
        embedding=embedding,
        tie_word_embeddings=config.boolean("tie_word_embeddings", default=tied),
        logit_softcap=logit_softcap,
    )
