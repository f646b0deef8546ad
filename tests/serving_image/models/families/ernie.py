"""ERNIE 4.5."""

from __future__ import annotations

from transformers import Ernie4_5Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "ernie-gqa-3-tied",
        Ernie4_5Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
    ),
    transformers_case(
        "ernie-untied-biased",
        Ernie4_5Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        use_bias=True,
        tie_word_embeddings=False,
        rms_norm_eps=0.5,
    ),
]
