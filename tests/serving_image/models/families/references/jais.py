"""JAIS (Sengupta et al. 2023, arXiv 2308.16149): GPT-2 with ALiBi, SwiGLU and the factors of maximal update
parametrisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tests.serving_image.models.families.references.checkpoint import Config, Shapes, Weights
from tests.serving_image.models.families.references.parts import alibi_slopes, attention, layer_norm


def shapes(config: Config) -> Shapes:
    """``Conv1D`` stores ``[in, out]``."""
    hidden, inner = config["n_embd"], config["n_inner"]
    found: Shapes = {
        "transformer.wte.weight": (config["vocab_size"], hidden),
        "transformer.ln_f.weight": (hidden,),
        "transformer.ln_f.bias": (hidden,),
    }
    if config["position_embedding_type"] != "alibi":
        found["transformer.wpe.weight"] = (config["n_positions"], hidden)
    if not config.get("tie_word_embeddings", True):
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    products = {"attn.c_attn": (hidden, 3 * hidden), "attn.c_proj": (hidden, hidden), "mlp.c_fc": (hidden, inner)}
    products["mlp.c_proj"] = (inner, hidden)
    if config["activation_function"] == "swiglu":
        products["mlp.c_fc2"] = (hidden, inner)
    for layer in range(config["n_layer"]):
        prefix = f"transformer.h.{layer}."
        for norm in ("ln_1", "ln_2"):
            found |= {f"{prefix}{norm}.{part}": (hidden,) for part in ("weight", "bias")}
        for name, shape in products.items():
            found |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[1:]}
    return found


def logits(weights: Weights, config: Config, tokens: Tensor) -> Tensor:
    """Scores after every token."""
    heads, epsilon = config["n_head"], config["layer_norm_epsilon"]
    table = weights["transformer.wte.weight"]
    x = table[tokens] * config.get("mup_embeddings_scale", config.get("embeddings_scale", 1.0))
    slopes = alibi_slopes(heads)
    if config["position_embedding_type"] != "alibi":
        x, slopes = x + weights["transformer.wpe.weight"][: len(tokens)], torch.zeros(heads)
    by_size = config.get("mup_scale_qk_dot_by_d", config.get("scale_qk_dot_by_d", False))

    def norm(name: str, value: Tensor) -> Tensor:
        return layer_norm(value, weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon)

    def conv1d(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    for layer in range(config["n_layer"]):
        prefix = f"transformer.h.{layer}."
        qkv = conv1d(prefix + "attn.c_attn", norm(prefix + "ln_1", x)).unflatten(1, (3, heads, -1))
        query, key, value = qkv.unbind(1)
        scale = query.shape[-1] ** (-1.0 if by_size else -0.5)
        x = x + conv1d(prefix + "attn.c_proj", attention(query, key, value, scale, slopes))
        normal = norm(prefix + "ln_2", x)
        inner = conv1d(prefix + "mlp.c_fc", normal)
        if config["activation_function"] == "swiglu":
            inner = inner * functional.silu(conv1d(prefix + "mlp.c_fc2", normal))
        else:
            inner = functional.gelu(inner, approximate="tanh")
        x = x + conv1d(prefix + "mlp.c_proj", inner)
    scores = norm("transformer.ln_f", x) @ weights.get("lm_head.weight", table).t()
    if "width_scale" in config:
        return scores * config["width_scale"]
    return scores * config.get("mup_output_alpha", 1.0) * config.get("mup_width_scale", 1.0)
