"""Qwen2."""

from __future__ import annotations

from transformers import Qwen2Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "qwen2-gqa-3-yarn",
        Qwen2Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1000000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    transformers_case(
        "qwen2-tied-windows",
        Qwen2Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=4,
        use_sliding_window=True,
        sliding_window=21,
        max_window_layers=1,
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
