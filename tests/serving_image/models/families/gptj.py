"""GPT-J."""

from __future__ import annotations

from transformers import GPTJConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"n_positions": 200, "n_layer": 2, "layer_norm_epsilon": 1e-3}

CASES = [
    transformers_case("gptj", GPTJConfig, **_SIZES, n_embd=48, n_head=3, rotary_dim=6),
    transformers_case(
        "gptj-tied-all-rotated",
        GPTJConfig,
        **_SIZES,
        n_embd=32,
        n_head=4,
        rotary_dim=8,
        n_inner=50,
        activation_function="relu",
        tie_word_embeddings=True,
    ),
]
