"""Rows for the sampler's tests, and the question whether drawn tokens follow a distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from serving_image.engine.protocol import SamplingParams
from serving_image.runtime.sampler import SamplingRow, sample


def row(prompt: Sequence[int] = (0,), output: Sequence[int] = (), seed: int = 0, **params: Any) -> SamplingRow:
    return SamplingRow(SamplingParams(**params), seed, [*prompt, *output], len(prompt))


def tokens(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[int | None]:
    """The chosen ids, from a copy of ``logits``."""
    return [None if token is None else token.token_id for token in sample(logits.clone(), rows)]


def draw(logits: torch.Tensor, count: int, **params: Any) -> torch.Tensor:
    """How often each token of ``logits`` ``[vocab]`` is drawn by ``count`` requests that differ in their seeds."""
    rows = [row(seed=seed, **params) for seed in range(count)]
    return torch.tensor(tokens(logits.expand(count, -1), rows)).bincount(minlength=logits.shape[0])


def assert_drawn_from(probabilities: torch.Tensor, counts: torch.Tensor) -> None:
    """Within six standard deviations everywhere, which chance alone exceeds once in 10⁹; never what is impossible."""
    expected = probabilities.double() * counts.sum()
    deviation = (counts - expected).abs()
    assert (deviation <= 6 * (expected * (1 - probabilities.double())).sqrt() + 3).all(), (counts, expected)
    assert not counts[probabilities == 0].any()
