"""GPT-BigCode."""

from __future__ import annotations

from transformers import GPTBigCodeConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"n_positions": 180, "n_layer": 2}

CASES = [
    transformers_case("gpt-bigcode-multi-query", GPTBigCodeConfig, **_SIZES, n_embd=36, n_head=3),
    transformers_case(
        "gpt-bigcode-multi-head",
        GPTBigCodeConfig,
        **_SIZES,
        n_embd=32,
        n_head=4,
        n_inner=50,
        multi_query=False,
        activation_function="gelu",
        scale_attn_weights=False,
        layer_norm_epsilon=1e-3,
        tie_word_embeddings=False,
    ),
]
