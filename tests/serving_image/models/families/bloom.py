"""BLOOM."""

from __future__ import annotations

from typing import Any

from transformers import BloomConfig

from tests.serving_image.models.families.case import respelled, transformers_case


def _of_bloom(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"n_embed": fields.pop("hidden_size"), "seq_length": 256}


CASES = [
    respelled(
        transformers_case("", BloomConfig, hidden_size=48, n_layer=2, n_head=6),
        "bloom-6-heads",
        tensors=lambda name: name.removeprefix("transformer."),
        fields=_of_bloom,
    ),
    transformers_case(
        "bloom-adds-to-normalised",
        BloomConfig,
        hidden_size=32,
        n_layer=2,
        n_head=4,
        layer_norm_epsilon=1e-3,
        apply_residual_connection_post_layernorm=True,
        tie_word_embeddings=False,
    ),
]
