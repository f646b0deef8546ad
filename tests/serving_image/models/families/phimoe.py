"""Phi-3.5-MoE: sparsemixer, biases everywhere, LongRoPE with an amplitude of its own on either side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PhimoeConfig

from tests.serving_image.models.families.case import (
    VOCAB_SIZE,
    Case,
    Reference,
    perturb,
    respelled,
    rope_of_transformers_4,
    transformers_reference,
)

# Shorter than the prompt of 37 tokens, longer than the prompt of 1 and what follows it.
_ORIGINAL = 30


class _PublishedLongRope(nn.Module):
    """LongRoPE as the code published with Phi-3.5-MoE has it. Transformers takes the short factors always."""

    def __init__(self, config: PhimoeConfig) -> None:
        super().__init__()
        self._rope = config.rope_parameters
        self._size = config.hidden_size // config.num_attention_heads

    def forward(self, _: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        side = "long" if int(position_ids.max()) + 1 > _ORIGINAL else "short"
        powers = self._rope["rope_theta"] ** (torch.arange(0, self._size, 2).float() / self._size)
        angles = position_ids[..., None].float() / (torch.tensor(self._rope[f"{side}_factor"]) * powers)
        turns = torch.cat((angles, angles), dim=-1)
        return turns.cos() * self._rope[f"{side}_mscale"], turns.sin() * self._rope[f"{side}_mscale"]


def _case(name: str, *, published: bool = False, **settings: Any) -> Case:
    """Transformers' model.

    :param published: with the rotary embedding of the published code.
    """

    def write(folder: Path) -> Reference:
        torch.manual_seed(len(name))
        config = PhimoeConfig(vocab_size=VOCAB_SIZE, initializer_range=0.2, max_position_embeddings=256, **settings)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
        perturb(model)
        model.save_pretrained(folder)
        if published:
            model.model.rotary_emb = _PublishedLongRope(config)
        return transformers_reference(model)

    return Case(name, write)


def _longrope(short: list[float], long: list[float]) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": short,
        "long_factor": long,
        "short_mscale": 1.1,
        "long_mscale": 1.3,
        "original_max_position_embeddings": _ORIGINAL,
    }


_BIASED = {
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_local_experts": 5,
    "attention_bias": True,
    "lm_head_bias": True,
}


def _as_published(fields: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` as it came with Phi-3.5-MoE."""
    return rope_of_transformers_4(fields) | {"architectures": ["PhiMoEForCausalLM"]}


CASES = [
    respelled(
        _case("phimoe-amplitudes", **_BIASED, rope_parameters=_longrope([1.0, 1.2, 1.5, 2.0], [1.0, 1.2, 1.5, 2.0])),
        "phimoe-amplitudes",
        fields=_as_published,
    ),
    _case(
        "phimoe-published-longrope",
        published=True,
        **_BIASED,
        rope_parameters=_longrope([1.0, 1.0, 1.2, 1.5], [1.0, 2.0, 4.0, 9.0]),
    ),
    _case(
        "phimoe-window",
        hidden_size=64,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_local_experts=4,
        router_jitter_noise=0.2,
        sliding_window=24,
    ),
]
