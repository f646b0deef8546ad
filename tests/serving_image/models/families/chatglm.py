"""ChatGLM 2 and 3, and GLM-4 of 2024."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.serving_image.models.families.case import VOCAB_SIZE
from tests.serving_image.models.families.references.chatglm import logits, shapes
from tests.serving_image.models.families.references.checkpoint import Config, reference_case

_SIZES = {
    "hidden_size": 48,
    "ffn_hidden_size": 80,
    "num_layers": 2,
    "seq_length": 256,
    "padded_vocab_size": VOCAB_SIZE,
    "num_attention_heads": 6,
    "kv_channels": 20,
    "layernorm_epsilon": 1e-5,
    "original_rope": True,
    "post_layer_norm": True,
    "tie_word_embeddings": False,
}


def _frequencies(config: Config) -> dict[str, Tensor]:
    """Checkpoints hold the rotary frequencies, without ``rope_ratio``."""
    return {"transformer.rotary_pos_emb.inv_freq": torch.ones(config["kv_channels"] // 4)}


CASES = [
    reference_case(
        "chatglm-gqa-3",
        "ChatGLMModel",
        _SIZES
        | {
            "rmsnorm": True,
            "multi_query_attention": True,
            "multi_query_group_num": 2,
            "add_bias_linear": False,
            "add_qkv_bias": True,
            "rope_ratio": 500,
            "layernorm_epsilon": 0.5,
        },
        shapes,
        logits,
        also_stored=_frequencies,
    ),
    reference_case(
        "chatglm-head-by-head-layer-norm",
        "ChatGLMForConditionalGeneration",
        _SIZES | {"rmsnorm": False, "multi_query_attention": False, "add_bias_linear": True, "add_qkv_bias": False},
        shapes,
        logits,
    ),
]
