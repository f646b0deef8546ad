"""Cohere Command-R."""

from __future__ import annotations

from transformers import CohereConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "cohere-gqa-3-head-norms",
        CohereConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        use_qk_norm=True,
        layer_norm_eps=0.3,
    ),
    transformers_case(
        "cohere-untied-biased",
        CohereConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        attention_bias=True,
        logit_scale=2.0,
        rope_parameters={"rope_type": "default", "rope_theta": 8000000.0},
        tie_word_embeddings=False,
        layer_norm_eps=0.5,
    ),
]
