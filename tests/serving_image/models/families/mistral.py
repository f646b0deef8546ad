"""Mistral."""

from __future__ import annotations

from transformers import MistralConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 256}

CASES = [
    transformers_case(
        "mistral-gqa-3-window",
        MistralConfig,
        **_SIZES,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        sliding_window=33,
    ),
    transformers_case(
        "mistral-tied-no-window",
        MistralConfig,
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_act="gelu_pytorch_tanh",
        rms_norm_eps=1e-2,
        sliding_window=None,
        rope_parameters={"rope_type": "linear", "rope_theta": 1000000.0, "factor": 3.0},
        tie_word_embeddings=True,
    ),
]
