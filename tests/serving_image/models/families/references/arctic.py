"""Snowflake Arctic, from the code published with the model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.parts import attention, rms_norm, rotate


def shapes(config: Config) -> Shapes:
    """All matrices are without biases."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    found: Shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings", False):
        found["lm_head.weight"] = (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix, experts = f"model.layers.{layer}.", f"model.layers.{layer}.block_sparse_moe."
        for name, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden)):
            found[f"{prefix}self_attn.{name}_proj.weight"] = (rows, hidden)
        found[prefix + "input_layernorm.weight"] = found[prefix + "post_attention_layernorm.weight"] = (hidden,)
        if not _is_sparse(config, layer):
            found |= _mlp_shapes(experts + "mlp.", hidden, config["intermediate_size"])
            continue
        found[experts + "gate.weight"] = (config["num_local_experts"], hidden)
        for expert in range(config["num_local_experts"]):
            found |= _mlp_shapes(f"{experts}experts.{expert}.", hidden, config["intermediate_size"])
        if config["parallel_attn_mlp_res"]:
            found[prefix + "residual_layernorm.weight"] = (hidden,)
            found |= _mlp_shapes(prefix + "residual_mlp.", hidden, hidden)
    return found


def logits(weights: Weights, config: Config, tokens: Tensor) -> Tensor:
    """Scores after every token."""

    def norm(name: str, value: Tensor) -> Tensor:
        return rms_norm(value, weights[name + ".weight"], config["rms_norm_eps"])

    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        attended = x + _attend(weights, config, prefix + "self_attn.", norm(prefix + "input_layernorm", x))
        sparse = _is_sparse(config, layer)
        if sparse and config["parallel_attn_mlp_res"]:
            dense = _mlp(weights, prefix + "residual_mlp.", norm(prefix + "residual_layernorm", attended))
            mixed = _mix(weights, config, prefix, norm(prefix + "post_attention_layernorm", x))
            x = attended + dense + mixed
        elif sparse:
            x = attended + _mix(weights, config, prefix, norm(prefix + "post_attention_layernorm", attended))
        else:
            normal = norm(prefix + "post_attention_layernorm", attended)
            x = attended + _mlp(weights, prefix + "block_sparse_moe.mlp.", normal)
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return norm("model.norm", x) @ head.t()


def _is_sparse(config: Config, layer: int) -> bool:
    return (layer + 1) % int(config["moe_layer_frequency"]) == 0


def _mlp_shapes(prefix: str, hidden: int, inner: int) -> Shapes:
    return {
        prefix + "w1.weight": (inner, hidden),
        prefix + "w2.weight": (hidden, inner),
        prefix + "w3.weight": (inner, hidden),
    }


def _attend(weights: Weights, config: Config, prefix: str, x: Tensor) -> Tensor:
    size = config["hidden_size"] // config["num_attention_heads"]
    query, key, value = ((x @ weights[f"{prefix}{name}_proj.weight"].t()).unflatten(1, (-1, size)) for name in "qkv")
    theta = config["rope_theta"]
    attended = attention(rotate(query, theta), rotate(key, theta), value, size**-0.5)
    return attended @ weights[prefix + "o_proj.weight"].t()


def _mlp(weights: Weights, prefix: str, x: Tensor) -> Tensor:
    gate, up = x @ weights[prefix + "w1.weight"].t(), x @ weights[prefix + "w3.weight"].t()
    return (functional.silu(gate) * up) @ weights[prefix + "w2.weight"].t()


def _mix(weights: Weights, config: Config, prefix: str, x: Tensor) -> Tensor:
    """Every expert on every token, weighted by its share among the token's best; by 0 if it is none of them."""
    shares = (x @ weights[prefix + "block_sparse_moe.gate.weight"].t()).softmax(-1)
    best, chosen = shares.topk(config["num_experts_per_tok"])
    kept = torch.zeros_like(shares).scatter(1, chosen, best / best.sum(-1, keepdim=True))
    outputs = [
        _mlp(weights, f"{prefix}block_sparse_moe.experts.{expert}.", x) * kept[:, expert, None]
        for expert in range(config["num_local_experts"])
    ]
    return torch.stack(outputs).sum(0)
