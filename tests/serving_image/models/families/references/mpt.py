"""MPT as LLM Foundry defines it, with what Transformers' class leaves out: biases, normalised queries and keys, grouped
heads, learned positions, a factor on logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.parts import alibi_slopes, attention, layer_norm


class _Heads(NamedTuple):
    kv_heads: int
    size: int


def _heads(config: Config) -> _Heads:
    settings, heads = config["attn_config"], config["n_heads"]
    kv_heads = {"multihead_attention": heads, "multiquery_attention": 1}.get(settings["attn_type"])
    return _Heads(kv_heads or settings["kv_n_heads"], config["d_model"] // heads)


def shapes(config: Config) -> Shapes:
    """``no_bias`` goes for norms as well."""
    hidden, inner = config["d_model"], int(config["d_model"] * config["expansion_ratio"])
    kv_width = _heads(config).kv_heads * _heads(config).size
    found: Shapes = {"transformer.wte.weight": (config["vocab_size"], hidden)}
    if not config["attn_config"]["alibi"]:
        found["transformer.wpe.weight"] = (config["max_seq_len"], hidden)
    modules: Shapes = {"transformer.norm_f": (hidden,)}
    for layer in range(config["n_layers"]):
        prefix = f"transformer.blocks.{layer}."
        modules |= {
            prefix + "norm_1": (hidden,),
            prefix + "norm_2": (hidden,),
            prefix + "attn.Wqkv": (hidden + 2 * kv_width, hidden),
            prefix + "attn.out_proj": (hidden, hidden),
            prefix + "ffn.up_proj": (inner, hidden),
            prefix + "ffn.down_proj": (hidden, inner),
        }
        if config["attn_config"]["qk_ln"]:
            modules |= {prefix + "attn.q_ln": (hidden,), prefix + "attn.k_ln": (kv_width,)}
    found |= {name + ".weight": shape for name, shape in modules.items()}
    if not config["no_bias"]:
        found |= {name + ".bias": shape[:1] for name, shape in modules.items()}
    return found


def logits(weights: Weights, config: Config, tokens: Tensor) -> Tensor:
    """Scores after every token."""
    settings, hidden, heads = config["attn_config"], config["d_model"], config["n_heads"]
    kv_heads, size = _heads(config)

    def norm(name: str, value: Tensor) -> Tensor:
        return layer_norm(value, weights[name + ".weight"], weights.get(name + ".bias"), 1e-5)

    def linear(name: str, value: Tensor) -> Tensor:
        return functional.linear(value, weights[name + ".weight"], weights.get(name + ".bias"))

    table = weights["transformer.wte.weight"]
    x, slopes = table[tokens], None
    if settings["alibi"]:
        slopes = alibi_slopes(heads) ** (settings["alibi_bias_max"] / 8)
    else:
        x = x + weights["transformer.wpe.weight"][: len(tokens)]
    for layer in range(config["n_layers"]):
        prefix = f"transformer.blocks.{layer}."
        qkv = linear(prefix + "attn.Wqkv", norm(prefix + "norm_1", x))
        if settings["clip_qkv"] is not None:
            qkv = qkv.clamp(-settings["clip_qkv"], settings["clip_qkv"])
        query, key, value = qkv.split((hidden, kv_heads * size, kv_heads * size), dim=1)
        if settings["qk_ln"]:
            query, key = norm(prefix + "attn.q_ln", query), norm(prefix + "attn.k_ln", key)
        query, key, value = (part.unflatten(1, (-1, size)) for part in (query, key, value))
        attended = attention(query, key, value, settings["softmax_scale"] or size**-0.5, slopes)
        x = x + linear(prefix + "attn.out_proj", attended)
        inner = functional.gelu(linear(prefix + "ffn.up_proj", norm(prefix + "norm_2", x)))
        x = x + linear(prefix + "ffn.down_proj", inner)
    scores = norm("transformer.norm_f", x) @ table.t()
    factor = config["logit_scale"]
    if factor is None:
        return scores
    return scores * (torch.tensor(hidden).rsqrt() if factor == "inv_sqrt_d_model" else factor)
