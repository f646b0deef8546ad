"""CodeGen."""

from __future__ import annotations

from transformers import CodeGenConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"n_positions": 200, "n_layer": 2, "layer_norm_epsilon": 1e-3}

CASES = [
    transformers_case("codegen", CodeGenConfig, **_SIZES, n_embd=64, n_head=8, rotary_dim=4),
    transformers_case(
        "codegen-tied-all-rotated",
        CodeGenConfig,
        **_SIZES,
        n_embd=48,
        n_head=4,
        rotary_dim=12,
        n_inner=50,
        activation_function="gelu",
        tie_word_embeddings=True,
    ),
]
