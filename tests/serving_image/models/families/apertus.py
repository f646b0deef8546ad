"""Apertus."""

from __future__ import annotations

from transformers import ApertusConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "apertus-gqa-3-llama3",
        ApertusConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
    ),
    transformers_case(
        "apertus-tied-biased",
        ApertusConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
