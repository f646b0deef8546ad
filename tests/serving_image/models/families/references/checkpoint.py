"""Random checkpoints as the references' own software would write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.serving_image.models.families.case import VOCAB_SIZE, Case, Reference

Weights = Mapping[str, Tensor]
Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
Logits = Callable[[Weights, Config, Tensor], Tensor]
"""From the tensors by their names in the file, ``config.json`` and ``[tokens]`` to ``[tokens, vocab]``."""


def random_weights(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Matrices wide enough that attention matters; norms' weights about 1, biases about 0."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {
        name: tensor + 1 if tensor.dim() == 1 and name.endswith("weight") else tensor for name, tensor in drawn.items()
    }


def reference_case(
    name: str,
    architecture: str,
    config: Config,
    shapes: Callable[[Config], Shapes],
    logits: Logits,
    *,
    max_tokens: int = 174,
    also_stored: Callable[[Config], dict[str, Tensor]] = lambda _: {},
) -> Case:
    """A configuration whose truth is a reference.

    :param shapes: the tensors of a checkpoint with this configuration.
    :param also_stored: tensors that checkpoints hold and nobody needs.
    """
    config = {"vocab_size": VOCAB_SIZE, "architectures": [architecture]} | config

    def write(folder: Path) -> Reference:
        weights = random_weights(shapes(config), seed=len(name))
        save_file({**weights, **also_stored(config)}, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config))
        return lambda tokens: logits(weights, config, torch.tensor(tokens))

    return Case(name, write, max_tokens)
