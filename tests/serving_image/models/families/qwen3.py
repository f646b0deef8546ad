"""Qwen3."""

from __future__ import annotations

from transformers import Qwen3Config

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "qwen3-gqa-3-tied",
        Qwen3Config,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        rms_norm_eps=1e-2,
        tie_word_embeddings=True,
    ),
    transformers_case(
        "qwen3-biased-windows-by-type",
        Qwen3Config,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=21,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
]
