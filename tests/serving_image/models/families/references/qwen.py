"""Qwen 1 (Bai et al. 2023, arXiv 2309.16609), within the context that it was trained for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.parts import attention, rms_norm, rotate


def shapes(config: Config) -> Shapes:
    """Heads may be wider than the hidden size has room for."""
    hidden, inner = config["hidden_size"], config["intermediate_size"] // 2
    projected = config["kv_channels"] * config["num_attention_heads"]
    found: Shapes = {
        "transformer.wte.weight": (config["vocab_size"], hidden),
        "transformer.ln_f.weight": (hidden,),
        "lm_head.weight": (config["vocab_size"], hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"transformer.h.{layer}."
        products = {
            "attn.c_proj": (hidden, projected),
            "mlp.w1": (inner, hidden),
            "mlp.w2": (inner, hidden),
            "mlp.c_proj": (hidden, inner),
        }
        found |= {prefix + "ln_1.weight": (hidden,), prefix + "ln_2.weight": (hidden,)}
        found |= {prefix + "attn.c_attn.weight": (3 * projected, hidden), prefix + "attn.c_attn.bias": (3 * projected,)}
        found |= {f"{prefix}{name}.weight": shape for name, shape in products.items()}
        if not config["no_bias"]:
            found |= {f"{prefix}{name}.bias": shape[:1] for name, shape in products.items()}
    return found


def logits(weights: Weights, config: Config, tokens: Tensor) -> Tensor:
    """Scores after every token."""
    heads, epsilon = config["num_attention_heads"], config["layer_norm_epsilon"]
    rotated = int(config["kv_channels"] * config["rotary_pct"])

    def linear(name: str, value: Tensor) -> Tensor:
        return functional.linear(value, weights[name + ".weight"], weights.get(name + ".bias"))

    def turn(part: Tensor) -> Tensor:
        return torch.cat((rotate(part[..., :rotated], config["rotary_emb_base"]), part[..., rotated:]), dim=-1)

    x = weights["transformer.wte.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"transformer.h.{layer}."
        packed = linear(prefix + "attn.c_attn", rms_norm(x, weights[prefix + "ln_1.weight"], epsilon))
        query, key, value = packed.unflatten(1, (3, heads, -1)).unbind(1)
        attended = attention(turn(query), turn(key), value, query.shape[-1] ** -0.5)
        x = x + linear(prefix + "attn.c_proj", attended)
        normal = rms_norm(x, weights[prefix + "ln_2.weight"], epsilon)
        inner = linear(prefix + "mlp.w1", normal) * functional.silu(linear(prefix + "mlp.w2", normal))
        x = x + linear(prefix + "mlp.c_proj", inner)
    return rms_norm(x, weights["transformer.ln_f.weight"], epsilon) @ weights["lm_head.weight"].t()
