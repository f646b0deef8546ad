"""Llama and what is built like it."""

from __future__ import annotations

from transformers import LlamaConfig

from tests.serving_image.models.families.case import transformers_case
from tests.serving_image.models.families.references.checkpoint import reference_case
from tests.serving_image.models.families.references.llama import logits, shapes

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}

CASES = [
    transformers_case(
        "llama-gqa-3",
        LlamaConfig,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=20,
        max_position_embeddings=256,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    transformers_case(
        "llama-tied-biased",
        LlamaConfig,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
    ),
    reference_case(
        "aquila-gqa-3",
        "AquilaForCausalLM",
        _SIZES | {"num_attention_heads": 6, "num_key_value_heads": 2, "rope_theta": 1000000.0},
        shapes,
        logits,
    ),
    reference_case(
        "aquila-1",
        "AquilaModel",
        _SIZES | {"num_attention_heads": 3, "num_key_value_heads": 3},
        shapes,
        logits,
    ),
    reference_case(
        "xverse",
        "XverseForCausalLM",
        _SIZES | {"num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-2},
        shapes,
        logits,
    ),
]
