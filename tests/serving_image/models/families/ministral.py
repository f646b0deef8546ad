"""Ministral."""

from __future__ import annotations

from transformers import MinistralConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "ministral-gqa-3-mixed",
        MinistralConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        sliding_window=19,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
    ),
    transformers_case(
        "ministral-tied-all-windows",
        MinistralConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=12,
        sliding_window=40,
        rope_parameters={"rope_type": "default", "rope_theta": 100000000.0},
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
