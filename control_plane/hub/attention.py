"""What a config.json says about attention, layer by layer: it decides how much memory each token of a request takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from control_plane.hub.values import flag, mapping, number, numbers_per_layer

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_HEAD_DIM = ("head_dim", "kv_channels", "attention_head_dim")
_HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model")
_WINDOW = ("sliding_window", "window_size")

#: Families whose layers with a window alternate with full ones where the config does not list them: every n-th is full.
_FULL_EVERY = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2, "olmo3": 4, "exaone4": 4, "granite_swa": 4}
#: Families that have one head of keys and values unless told otherwise.
_MULTI_QUERY = frozenset({"falcon", "gpt_bigcode", "RefinedWebModel"})
#: Families that state a window and use it only where a flag says so.
_WINDOW_ON_REQUEST = frozenset({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3"})
#: Families whose latent attention the engine keeps compressed; of others it keeps the keys and values made of it.
_COMPRESSED = frozenset({"deepseek_v2", "deepseek_v3"})
_MOST_LAYERS = 10_000


class Latent(NamedTuple):
    """Sizes of multi-head latent attention (DeepSeek-AI 2024, arXiv 2405.04434). A token's row: rank + rope_dim."""

    rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int


class AttentionLayer(NamedTuple):
    """Attention of one layer. ``window``: how many tokens a query sees; None: all.

    ``latent`` where the cache holds compressed rows; ``kv_heads`` and ``head_dim`` say nothing then.
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    latent: Latent | None = None


def read_attention(config: Mapping[str, Any]) -> tuple[AttentionLayer, ...]:
    """The attention layers, in order; none where the config does not say enough.

    :raises InvalidRepository: a value of the wrong type or beyond reason.
    """
    heads, count = number(config, _HEADS), number(config, _LAYERS, most=_MOST_LAYERS)
    head_dim = _head_dim(config, heads)
    if not (heads and count and head_dim):
        return ()
    latent = _latent(config)
    if latent and config.get("model_type") in _COMPRESSED:
        return (AttentionLayer(heads, heads, head_dim, latent=latent),) * count
    if latent:  # expanded keys of nope_dim + rope_dim; values are kept as wide
        return (AttentionLayer(heads, heads, latent.nope_dim + latent.rope_dim),) * count
    layers = zip(_kv_heads(config, heads, count), _windows(config, count), strict=True)
    return tuple(AttentionLayer(heads, kv_heads, head_dim, window) for kv_heads, window in layers if kv_heads)


def _head_dim(config: Mapping[str, Any], heads: int | None) -> int | None:
    hidden = number(config, _HIDDEN)
    return number(config, _HEAD_DIM) or (hidden // heads if hidden and heads else None)


def _latent(config: Mapping[str, Any]) -> Latent | None:
    rank, nope = number(config, ("kv_lora_rank",)), number(config, ("qk_nope_head_dim",))
    rope, value = number(config, ("qk_rope_head_dim",)), number(config, ("v_head_dim",))
    return Latent(rank, nope, rope, value) if rank and nope and rope and value else None


def _kv_heads(config: Mapping[str, Any], heads: int, count: int) -> list[int]:
    """Heads of keys and values for each layer; 0: the layer has no attention (DeciLM)."""
    if blocks := config.get("block_configs"):
        return [_kv_heads_of_block(block, heads) for block in blocks] if isinstance(blocks, list) else []
    if listed := numbers_per_layer(config, ("num_key_value_heads_per_layer", *_KV_HEADS), count):
        return listed
    return [_uniform_kv_heads(config, heads)] * count


def _kv_heads_of_block(block: Any, heads: int) -> int:
    """DeciLM and Nemotron-NAS: how many heads share one of keys and values, or no attention at all."""
    attention = mapping(mapping(block).get("attention"))
    group = number(attention, ("n_heads_in_group",))
    return heads // group if group else 0


def _uniform_kv_heads(config: Mapping[str, Any], heads: int) -> int:
    """Falcon, GPT-BigCode and ChatGLM have a flag for one, beside a number that only counts without or with it."""
    if flag(config, "new_decoder_architecture") is not True:
        one = flag(config, "multi_query")
        if one or (one is None and config.get("model_type") in _MULTI_QUERY):
            return 1
        if one is False:
            return heads
    if flag(config, "multi_query_attention") is False:
        return heads
    nested = number(mapping(config.get("attn_config")), ("kv_n_heads",))
    return nested or number(config, _KV_HEADS) or heads


def _windows(config: Mapping[str, Any], count: int) -> list[int | None]:
    """For each layer how many tokens it sees; None: all."""
    wanted = flag(config, "use_sliding_window")
    if wanted is None:
        wanted = config.get("model_type") not in _WINDOW_ON_REQUEST
    if not wanted or any(config.get(name) == -1 for name in _WINDOW):  # -1 says that there is none
        return [None] * count
    window = number(config, _WINDOW)
    if window is None:
        return [None] * count
    return [window if sliding else None for sliding in _sliding(config, count)]


def _sliding(config: Mapping[str, Any], count: int) -> list[bool]:
    """Which layers have a window: listed, by a pattern, from a certain layer on, or all."""
    family = config.get("model_type")
    types = config.get("layer_types") or config.get("attention_layers") or _unrolled(config.get("attention_types"))
    if isinstance(types, list) and len(types) == count:
        return [kind in {"sliding_attention", "local"} for kind in types]
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # "LLLG": local, local, local, global
        return [pattern[layer % len(pattern)] == "L" for layer in range(count)]
    every = number(config, ("sliding_window_pattern", "_sliding_window_pattern")) or _FULL_EVERY.get(str(family))
    if every:
        return [(layer + 1) % every != 0 for layer in range(count)]
    first = config.get("max_window_layers") if flag(config, "use_sliding_window") else None
    return [not isinstance(first, int) or layer >= first for layer in range(count)]


def _unrolled(types: Any) -> list[str]:
    """GPT-Neo's ``[[["global", "local"], 12]]``: twelve times both."""
    try:
        return [kind for kinds, times in types or () for _ in range(min(times, _MOST_LAYERS)) for kind in kinds]
    except (TypeError, ValueError):
        return []
