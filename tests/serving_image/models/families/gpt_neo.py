"""GPT-Neo."""

from __future__ import annotations

from transformers import GPTNeoConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"max_position_embeddings": 190, "window_size": 10}

CASES = [
    transformers_case(
        "gpt-neo-alternating",
        GPTNeoConfig,
        **_SIZES,
        hidden_size=36,
        num_layers=4,
        num_heads=3,
        attention_types=[[["global", "local"], 2]],
    ),
    transformers_case(
        "gpt-neo-local-first-untied",
        GPTNeoConfig,
        **_SIZES,
        hidden_size=32,
        intermediate_size=50,
        num_layers=3,
        num_heads=4,
        attention_types=[[["local"], 2], [["global"], 1]],
        activation_function="relu",
        layer_norm_epsilon=1e-3,
        tie_word_embeddings=False,
    ),
]
