"""OLMo 3."""

from __future__ import annotations

from transformers import Olmo3Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "olmo3-gqa-3-yarn",
        Olmo3Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        sliding_window=21,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {
                "rope_type": "yarn",
                "rope_theta": 500000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
        },
    ),
    transformers_case(
        "olmo3-tied-biased",
        Olmo3Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        sliding_window=33,
        attention_bias=True,
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
