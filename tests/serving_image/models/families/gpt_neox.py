"""GPT-NeoX."""

from __future__ import annotations

from typing import Any

from transformers import GPTNeoXConfig

from tests.serving_image.models.families.case import respelled, transformers_case


def _of_pythia(fields: dict[str, Any]) -> dict[str, Any]:
    """The name that the published checkpoints have for the rotary base; the rotated part is what is the default."""
    return fields | {"rotary_emb_base": fields.pop("rope_parameters")["rope_theta"]}


CASES = [
    respelled(
        transformers_case(
            "",
            GPTNeoXConfig,
            hidden_size=48,
            intermediate_size=70,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=256,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25},
        ),
        "gpt-neox-pythia",
        fields=_of_pythia,
        tensors=lambda name: name.replace("lm_head", "embed_out"),
    ),
    transformers_case(
        "gpt-neox-sequential-tied-linear-rope",
        GPTNeoXConfig,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        hidden_act="gelu_fast",
        layer_norm_eps=1e-3,
        attention_bias=False,
        use_parallel_residual=False,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "linear",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "partial_rotary_factor": 0.5,
        },
    ),
]
