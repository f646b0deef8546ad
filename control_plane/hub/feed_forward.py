"""What a config.json says about the feed-forward part of a layer, dense or a mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.hub.values import mapping, number

_HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model")
_INNER = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "inner_dim")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_k")

_EXPERT_INNER = ("moe_intermediate_size",)

#: Families with one projection up instead of a gate and a projection.
_PLAIN = frozenset(
    {
        "apertus",
        "arcee",
        "biogpt",
        "bloom",
        "codegen",
        "falcon",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "mpt",
        "nemotron",
        "opt",
        "persimmon",
        "phi",
        "RefinedWeb",
        "RefinedWebModel",
        "starcoder2",
        "xglm",
    }
)
#: Configs that state the width of both halves of a gated projection together (Qwen 1).
_HALVED = frozenset({"qwen"})


@dataclass(frozen=True)
class FeedForward:
    """Widths in elements. ``dense`` is that of dense layers, 0 if there are none.

    Of a mixture ``experts`` says how many there are, ``top_k`` how many a token goes to, ``expert_inner`` their width,
    and ``shared`` the width of all that every token goes to together.
    """

    dense: int
    gated: bool = True
    experts: int = 0
    top_k: int = 0
    expert_inner: int = 0
    shared: int = 0


def read_feed_forward(config: Mapping[str, Any]) -> FeedForward | None:
    """The feed-forward part; None where the config does not say enough.

    :raises InvalidRepository: a value of the wrong type or beyond reason.
    """
    family = config.get("model_type")
    values = {**config, **mapping(config.get("ffn_config"))}  # the nested one is DBRX's
    inner = _inner(values, number(config, _HIDDEN))
    if inner is None:
        return None
    experts, top_k = number(values, _EXPERTS), number(values, _TOP_K)
    if not (experts and top_k):
        return FeedForward(inner // 2 if family in _HALVED else inner, family not in _PLAIN)
    own = number(values, _EXPERT_INNER) or inner
    shared = number(values, ("shared_expert_intermediate_size",)) or (number(values, ("n_shared_experts",)) or 0) * own
    dense = number(values, ("first_k_dense_replace",)) is not None or bool(values.get("mlp_only_layers"))
    return FeedForward(inner if dense else 0, True, experts, top_k, own, shared)


def _inner(values: Mapping[str, Any], hidden: int | None) -> int | None:
    """The stated width, or what families that leave it out mean by that."""
    if blocks := values.get("block_configs"):
        return _widest_block(blocks, hidden)
    if stated := number(values, _INNER):
        return stated
    ratio = values.get("expansion_ratio", 4)
    return int(hidden * ratio) if hidden and isinstance(ratio, int | float) and 0 < ratio <= 1000 else None


def _widest_block(blocks: Any, hidden: int | None) -> int | None:
    """Nemotron-NAS states ``ffn_mult`` for each layer: 2/3 of it times the hidden size, rounded up to 256."""
    if not (isinstance(blocks, list) and hidden):
        return None
    factors = [mapping(mapping(block).get("ffn")).get("ffn_mult") for block in blocks]
    widths = [int(2 * factor * hidden / 3) for factor in factors if isinstance(factor, int | float) and factor < 1000]
    return max((-(-width // 256) * 256 for width in widths), default=None)
