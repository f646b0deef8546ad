"""EXAONE 4."""

from __future__ import annotations

from transformers import Exaone4Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "exaone4-gqa-3-windows",
        Exaone4Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        sliding_window=21,
        sliding_window_pattern=3,
    ),
    transformers_case(
        "exaone4-tied-full",
        Exaone4Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        sliding_window=None,
        layer_types=["full_attention", "full_attention", "full_attention"],
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
