"""OPT."""

from __future__ import annotations

from transformers import OPTConfig

from tests.serving_image.models.families.case import respelled, transformers_case

_SIZES = {"num_hidden_layers": 2, "max_position_embeddings": 190, "init_std": 0.2}

CASES = [
    respelled(
        transformers_case("", OPTConfig, **_SIZES, hidden_size=36, ffn_dim=50, num_attention_heads=3),
        "opt-125m",
        tensors=lambda name: name.removeprefix("model."),
    ),
    transformers_case(
        "opt-350m",
        OPTConfig,
        **_SIZES,
        hidden_size=48,
        word_embed_proj_dim=20,
        ffn_dim=70,
        num_attention_heads=4,
        do_layer_norm_before=False,
    ),
    transformers_case(
        "opt-no-biases-no-final-norm-untied",
        OPTConfig,
        **_SIZES,
        hidden_size=32,
        ffn_dim=40,
        num_attention_heads=2,
        activation_function="gelu",
        enable_bias=False,
        layer_norm_elementwise_affine=False,
        _remove_final_layer_norm=True,
        tie_word_embeddings=False,
    ),
]
