"""Granite."""

from __future__ import annotations

from transformers import GraniteConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "granite-gqa-3-factors",
        GraniteConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        attention_bias=True,
        mlp_bias=True,
        embedding_multiplier=12.0,
        logits_scaling=0.25,
        residual_multiplier=0.3,
        attention_multiplier=0.2,
    ),
    transformers_case(
        "granite-tied",
        GraniteConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=1,
        embedding_multiplier=3,
        logits_scaling=2,
        residual_multiplier=1.5,
        attention_multiplier=0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000000.0},
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
