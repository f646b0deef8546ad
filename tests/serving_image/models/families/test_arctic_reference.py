"""Arctic without its dense blocks is Mixtral, so its reference must score what Transformers' Mixtral scores."""

from __future__ import annotations

from typing import Any

import torch
from transformers import MixtralConfig, MixtralForCausalLM

from tests.serving_image.models.families.references.arctic import logits, shapes
from tests.serving_image.models.families.references.checkpoint import random_weights


def test_a_mixture_in_every_layer_and_nothing_beside_it_is_mixtral() -> None:
    config: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    ours = config | {"moe_layer_frequency": 1, "parallel_attn_mlp_res": False}
    weights = random_weights(shapes(ours))
    model = MixtralForCausalLM(MixtralConfig(**config)).eval()
    stored = {name.replace("block_sparse_moe", "mlp"): tensor for name, tensor in weights.items()}
    for name in list(model.state_dict()):
        if name.endswith(("gate_up_proj", "down_proj")):
            prefix = name.rpartition(".")[0]
            parts = ("w1", "w3") if name.endswith("gate_up_proj") else ("w2",)
            stored[name] = torch.stack(
                [torch.cat([stored.pop(f"{prefix}.{expert}.{part}.weight") for part in parts]) for expert in range(4)]
            )
    model.load_state_dict(stored)
    tokens = torch.randint(0, 97, (40,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(tokens[None]).logits[0]
    torch.testing.assert_close(logits(weights, ours, tokens), expected, atol=1e-4, rtol=1e-4)
