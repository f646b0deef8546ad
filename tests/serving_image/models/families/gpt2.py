"""GPT-2."""

from __future__ import annotations

from transformers import GPT2Config

from tests.serving_image.models.families.case import respelled, transformers_case

_SIZES = {"n_positions": 180, "n_layer": 2, "n_embd": 36}

CASES = [
    respelled(
        transformers_case("", GPT2Config, **_SIZES, n_head=3),
        "gpt2-tied-no-prefix",
        tensors=lambda name: name.removeprefix("transformer."),
    ),
    transformers_case(
        "gpt2-scale-by-layer",
        GPT2Config,
        **_SIZES,
        n_head=2,
        n_inner=50,
        activation_function="relu",
        layer_norm_epsilon=1e-3,
        scale_attn_weights=False,
        scale_attn_by_inverse_layer_idx=True,
        tie_word_embeddings=False,
    ),
]
