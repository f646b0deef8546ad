"""XGLM."""

from __future__ import annotations

from transformers import XGLMConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"num_layers": 2, "max_position_embeddings": 190, "init_std": 0.2}

CASES = [
    transformers_case("xglm", XGLMConfig, **_SIZES, d_model=36, ffn_dim=70, attention_heads=3),
    transformers_case(
        "xglm-not-scaled-untied-position-zeroed",
        XGLMConfig,
        **_SIZES,
        d_model=32,
        ffn_dim=50,
        attention_heads=4,
        activation_function="relu",
        scale_embedding=False,
        pad_token_id=9,
        tie_word_embeddings=False,
    ),
]
