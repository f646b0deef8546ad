"""Fields of ``config.json`` that most families share."""

from __future__ import annotations

from typing import NamedTuple

from kernels.activation import GatedKind, Kind
from serving_image.models.config import NormConfig
from serving_image.models.hf_config import HFConfig

_GATED: dict[str, GatedKind] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
_PLAIN: dict[str, Kind] = {**_GATED, "relu2": "relu_squared"}


class Heads(NamedTuple):
    """How attention is divided."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


def heads(config: HFConfig, default_head_dim: int | None = None) -> Heads:
    """In the fields of Llama.

    :param default_head_dim: where ``head_dim`` is absent; None, as where it is null: the hidden size's share.
    :raises StartupError: heads do not divide.
    """
    num_heads = config.positive_int("num_attention_heads")
    share = max(1, config.positive_int("hidden_size") // num_heads)
    return checked_heads(
        config,
        num_heads,
        config.positive_int("num_key_value_heads", default=num_heads),
        config.optional_int("head_dim", default_head_dim) or share,
    )


def checked_heads(config: HFConfig, num_heads: int, num_kv_heads: int, head_dim: int) -> Heads:
    """:raises StartupError: heads do not divide."""
    if num_heads % num_kv_heads or head_dim % 2 or head_dim < 2:
        raise config.error(
            f"{num_heads} attention heads over {num_kv_heads} key/value heads of size {head_dim} is not a layout "
            "that attention can use"
        )
    return Heads(num_heads, num_kv_heads, head_dim)


def rms_norm(config: HFConfig, key: str = "rms_norm_eps", default: float = 1e-6) -> NormConfig:
    """A root-mean-square norm with the epsilon that the field states."""
    return NormConfig(kind="rms", epsilon=config.number(key, default=default))


def layer_norm(config: HFConfig, key: str, default: float = 1e-5, *, has_bias: bool = True) -> NormConfig:
    """A layer norm with the epsilon that the field states."""
    return NormConfig(kind="layer", epsilon=config.number(key, default=default), has_bias=has_bias)


def gated_activation(config: HFConfig, key: str = "hidden_act", default: str = "silu") -> GatedKind:
    """The gate's activation.

    :raises StartupError: none that the kernels have.
    """
    return config.choice(key, _GATED, default)


def plain_activation(config: HFConfig, key: str = "hidden_act", default: str = "gelu_new") -> Kind:
    """The activation of an ungated block.

    :raises StartupError: none that the kernels have.
    """
    return config.choice(key, _PLAIN, default)


def tied(config: HFConfig, default: bool) -> bool:
    """``tie_word_embeddings``."""
    return config.boolean("tie_word_embeddings", default=default)
