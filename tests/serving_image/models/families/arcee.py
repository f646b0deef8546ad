"""Arcee."""

from __future__ import annotations

from transformers import ArceeConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "arcee-gqa-3-yarn",
        ArceeConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 500000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        },
    ),
    transformers_case(
        "arcee-tied-biased",
        ArceeConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
