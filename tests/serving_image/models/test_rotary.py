"""Rotary frequencies against Transformers' own, for the settings that checkpoints in use have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from serving_image.models.registry import ModelFolder
from serving_image.models.rotary import NoRotation, RotaryEmbedding, rotary_embedding

SETTINGS: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 1e6},
    {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0},
    {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 16.0, "original_max_position_embeddings": 4096},
    {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False},
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.7},
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "attention_factor": 1.25},
]


def _ours(folder: Path) -> RotaryEmbedding | NoRotation:
    (rotary,) = ModelFolder.open(folder).decoder.rotaries
    return rotary_embedding(rotary, torch.device("cpu"))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_rotations_equal_transformers(tmp_path: Path, settings: dict[str, Any], head_dim: int) -> None:
    theirs = LlamaConfig(
        hidden_size=8 * head_dim, num_attention_heads=8, max_position_embeddings=8192, rope_parameters=dict(settings)
    )
    theirs.architectures = ["LlamaForCausalLM"]
    theirs.save_pretrained(tmp_path)
    rotary = _ours(tmp_path)
    positions = torch.tensor([0, 1, 77, 4095, 8191])
    cos, sin = LlamaRotaryEmbedding(theirs)(torch.zeros(1), positions[None])
    # Transformers lets the longest position decide for all, which is what a prompt of that length means here.
    ours = rotary(positions, torch.full_like(positions, 8192))
    torch.testing.assert_close(ours.cos, cos[0, :, : head_dim // 2], atol=2e-3, rtol=0)
    torch.testing.assert_close(ours.sin, sin[0, :, : head_dim // 2], atol=2e-3, rtol=0)


def test_dynamic_scaling_looks_at_each_tokens_own_sequence(tmp_path: Path) -> None:
    theirs = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=32,
        architectures=["LlamaForCausalLM"],
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    )
    theirs.save_pretrained(tmp_path)
    rotary = _ours(tmp_path)
    mixed = rotary(torch.tensor([5, 5, 50]), torch.tensor([6, 60, 60]))
    short = rotary(torch.tensor([5]), torch.tensor([20]))
    long = rotary(torch.tensor([5, 50]), torch.tensor([60, 60]))
    assert torch.equal(mixed.cos, torch.cat((short.cos, long.cos)))
    assert not torch.allclose(short.cos, long.cos[:1])


@pytest.mark.parametrize("length", [64, 65], ids=["short", "long"])
def test_longrope_chooses_its_factors_by_the_length_of_the_sequence(tmp_path: Path, length: int) -> None:
    settings = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0 + index / 10 for index in range(8)],
        "long_factor": [4.0 + index for index in range(8)],
        "original_max_position_embeddings": 64,
    }
    theirs = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=256,
        architectures=["LlamaForCausalLM"],
        rope_parameters=settings | {"factor": 4.0},
    )
    theirs.save_pretrained(tmp_path)
    positions = torch.arange(length)
    cos, sin = LlamaRotaryEmbedding(theirs)(torch.zeros(1), positions[None])
    # Beside a sequence of the other kind, which changes nothing.
    other = torch.full_like(positions, 129 - length)
    rotations = _ours(tmp_path)(positions.repeat(2), torch.cat((torch.full_like(positions, length), other)))
    torch.testing.assert_close(rotations.cos[:length], cos[0, :, :8], atol=1e-5, rtol=0)
    torch.testing.assert_close(rotations.sin[:length], sin[0, :, :8], atol=1e-5, rtol=0)
    assert not torch.allclose(rotations.sin[length:], sin[0, :, :8], atol=1e-2)
