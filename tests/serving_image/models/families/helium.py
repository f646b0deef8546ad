"""Helium."""

from __future__ import annotations

from transformers import HeliumConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "helium-gqa-3",
        HeliumConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
    ),
    transformers_case(
        "helium-tied-biased",
        HeliumConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=12,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
