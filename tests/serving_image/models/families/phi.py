"""Phi-1 and Phi-2."""

from __future__ import annotations

from typing import Any

from transformers import PhiConfig

from tests.serving_image.models.families.case import respelled, transformers_case, without


def _of_phi_2(fields: dict[str, Any]) -> dict[str, Any]:
    rope = fields.pop("rope_parameters")
    return fields | {key: rope[key] for key in ("rope_theta", "partial_rotary_factor")} | {"rope_scaling": None}


CASES = [
    respelled(
        transformers_case(
            "",
            PhiConfig,
            hidden_size=60,
            intermediate_size=70,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=256,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.4},
        ),
        "phi-2",
        fields=_of_phi_2,
    ),
    respelled(
        transformers_case(
            "",
            PhiConfig,
            hidden_size=48,
            intermediate_size=50,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=256,
            hidden_act="relu",
            layer_norm_eps=1e-3,
            qk_layernorm=True,
            tie_word_embeddings=True,
        ),
        "phi-head-norms-gqa-tied",
        fields=without("rope_parameters"),
    ),
]
