"""Nemotron."""

from __future__ import annotations

from transformers import NemotronConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "nemotron-gqa-3",
        NemotronConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
    ),
    transformers_case(
        "nemotron-tied-biased",
        NemotronConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        attention_bias=True,
        mlp_bias=True,
        partial_rotary_factor=1.0,
        tie_word_embeddings=True,
        norm_eps=0.5,
    ),
]
