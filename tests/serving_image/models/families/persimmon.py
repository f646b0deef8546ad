"""Persimmon."""

from __future__ import annotations

from typing import Any

from transformers import PersimmonConfig

from tests.serving_image.models.families.case import respelled, transformers_case

_SIZES = {"num_hidden_layers": 2, "max_position_embeddings": 256}


def _of_few_words(fields: dict[str, Any]) -> dict[str, Any]:
    """Half of a head is rotated, and heads are normalised, where no field states it."""
    del fields["qk_layernorm"]
    return fields | {"rope_theta": fields.pop("rope_parameters")["rope_theta"]}


CASES = [
    respelled(
        transformers_case(
            "",
            PersimmonConfig,
            **_SIZES,
            hidden_size=36,
            intermediate_size=70,
            num_attention_heads=3,
            rope_parameters={"rope_type": "default", "rope_theta": 25000.0, "partial_rotary_factor": 0.5},
        ),
        "persimmon",
        fields=_of_few_words,
    ),
    transformers_case(
        "persimmon-no-head-norms-tied",
        PersimmonConfig,
        **_SIZES,
        hidden_size=64,
        intermediate_size=50,
        num_attention_heads=4,
        hidden_act="gelu",
        layer_norm_eps=1e-3,
        qk_layernorm=False,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "linear",
            "rope_theta": 500.0,
            "factor": 2.0,
            "partial_rotary_factor": 0.25,
        },
    ),
]
