"""Phi-3 and Phi-4."""

from __future__ import annotations

from transformers import Phi3Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
}

CASES = [
    transformers_case(
        "phi3-gqa-3-window",
        Phi3Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        sliding_window=33,
    ),
    transformers_case(
        "phi3-tied-longrope",
        Phi3Config,
        **_SIZES,
        num_attention_heads=3,
        num_key_value_heads=1,
        partial_rotary_factor=0.75,
        original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            "long_factor": [1.0, 2.0, 3.0, 5.0, 8.0, 13.0],
        },
        tie_word_embeddings=True,
        rms_norm_eps=0.5,
    ),
]
