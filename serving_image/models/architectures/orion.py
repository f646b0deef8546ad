"""Orion: Llama with layer norms."""

from __future__ import annotations

from dataclasses import replace

from serving_image.models.architectures import llama
from serving_image.models.description import ModelDescription
from serving_image.models.fields import layer_norm
from serving_image.models.hf_config import HFConfig

ARCHITECTURES = ("OrionForCausalLM",)


def describe(config: HFConfig) -> ModelDescription:
    """Norms have biases, and their epsilon is ``rms_norm_eps``."""
    decoder, names = llama.describe(config)
    norm = layer_norm(config, "rms_norm_eps")
    layers = tuple(tuple(replace(block, norm=norm) for block in layer) for layer in decoder.layers)
    return ModelDescription(replace(decoder, layers=layers, final_norm=norm), names)
