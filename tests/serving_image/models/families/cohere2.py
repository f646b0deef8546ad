"""Cohere Command-R7B."""

from __future__ import annotations

from transformers import Cohere2Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "cohere2-gqa-3-windows",
        Cohere2Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        sliding_window=21,
        sliding_window_pattern=3,
    ),
    transformers_case(
        "cohere2-untied-biased",
        Cohere2Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        attention_bias=True,
        sliding_window=33,
        logit_scale=0.25,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        tie_word_embeddings=False,
        layer_norm_eps=0.5,
    ),
]
