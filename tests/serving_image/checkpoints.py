"""Tiny random Llama checkpoints and what Transformers makes of them: the independent truth for the engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB_SIZE = 256

ROPE_VARIANTS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16},
}


def write_checkpoint(folder: Path, *, seed: int = 0, shard_size: str = "1GB", **changes: Any) -> Path:
    """Save a two-layer Llama with random weights, large enough that attention matters, and return its folder."""
    settings: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "rope_parameters": dict(ROPE_VARIANTS["default"]),
    }
    config = LlamaConfig(**(settings | changes))
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    # Transformers starts biases at zero and norms at one, which would hide that they are read at all.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder, max_shard_size=shard_size)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of ``config.json``; None removes one."""
    path = folder / "config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))


@cache
def _model(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def transformers_greedy(folder: Path, prompt: Sequence[int], max_tokens: int) -> list[int]:
    """The tokens that Transformers' ``generate`` appends to ``prompt``, greedily, in float32."""
    model = _model(folder)
    # ``dynamic`` scaling remembers the longest sequence it has seen; every request starts from a fresh one.
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    input_ids = torch.tensor([list(prompt)])
    output = model.generate(
        input_ids,
        # Otherwise generate takes every 0 in the prompt for padding.
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


def random_prompt(length: int, seed: int) -> list[int]:
    """``length`` token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB_SIZE, (length,), generator=generator).tolist()
