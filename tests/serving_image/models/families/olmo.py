"""OLMo 1."""

from __future__ import annotations

from transformers import OlmoConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "olmo-gqa-3-clipped",
        OlmoConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        clip_qkv=0.4,
    ),
    transformers_case(
        "olmo-tied-biased",
        OlmoConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        attention_bias=True,
        hidden_act="gelu",
        tie_word_embeddings=True,
    ),
]
