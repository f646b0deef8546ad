"""BioGPT."""

from __future__ import annotations

from transformers import BioGptConfig

from tests.serving_image.models.families.case import transformers_case

_SIZES = {"num_hidden_layers": 2, "max_position_embeddings": 190}

CASES = [
    transformers_case("biogpt", BioGptConfig, **_SIZES, hidden_size=36, intermediate_size=70, num_attention_heads=3),
    transformers_case(
        "biogpt-not-scaled-untied",
        BioGptConfig,
        **_SIZES,
        hidden_size=32,
        intermediate_size=50,
        num_attention_heads=4,
        hidden_act="relu",
        scale_embedding=False,
        tie_word_embeddings=False,
    ),
]
