"""JAIS."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.serving_image.models.families.references.checkpoint import Config, reference_case
from tests.serving_image.models.families.references.jais import logits, shapes
from tests.serving_image.models.families.references.parts import alibi_slopes

_SIZES = {"n_positions": 180, "n_layer": 2, "layer_norm_epsilon": 1e-3}


def _slopes(config: Config) -> dict[str, Tensor]:
    """Checkpoints hold the slopes, which the number of heads gives."""
    return {"transformer.relative_pe.slopes": alibi_slopes(config["n_head"])[:, None]}


def _mask(config: Config) -> dict[str, Tensor]:
    return {"transformer.h.0.attn.bias": torch.ones(1, 1, config["n_positions"], config["n_positions"])}


CASES = [
    reference_case(
        "jais-13b-6-heads",
        "JAISLMHeadModel",
        _SIZES
        | {
            "n_embd": 48,
            "n_head": 6,
            "n_inner": 50,
            "activation_function": "swiglu",
            "position_embedding_type": "alibi",
            "embeddings_scale": 3.0,
            "width_scale": 0.4,
            "scale_qk_dot_by_d": True,
        },
        shapes,
        logits,
        also_stored=_slopes,
    ),
    reference_case(
        "jais-family-untied",
        "JAISLMHeadModel",
        _SIZES
        | {
            "n_embd": 32,
            "n_head": 4,
            "n_inner": 70,
            "activation_function": "swiglu",
            "position_embedding_type": "alibi",
            "mup_embeddings_scale": 2.0,
            "mup_output_alpha": 1.5,
            "mup_width_scale": 0.3,
            "mup_scale_qk_dot_by_d": False,
            "tie_word_embeddings": False,
        },
        shapes,
        logits,
    ),
    reference_case(
        "jais-learned-positions",
        "JAISLMHeadModel",
        _SIZES
        | {
            "n_embd": 36,
            "n_head": 3,
            "n_inner": 40,
            "activation_function": "gelu_new",
            "position_embedding_type": "learned",
        },
        shapes,
        logits,
        also_stored=_mask,
    ),
]
