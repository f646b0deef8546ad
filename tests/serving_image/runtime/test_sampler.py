"""Sampled tokens follow the exact distribution that temperature, top-k and top-p define."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.runtime.sampler import SamplingRow, sample, uniform

PLAIN = SamplingRow(temperature=1.0, top_k=0, top_p=1.0, uniform=0.5)


def _exact(logits: list[float], row: SamplingRow) -> list[float]:
    """The distribution by its definition, in Python floats: temperature, then top-k, then top-p, best first."""
    weights = [math.exp(value / row.temperature - max(logits) / row.temperature) for value in logits]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    if row.top_k:
        order = order[: row.top_k]
    total = sum(weights[token] for token in order)
    kept, mass = [], 0.0
    for token in order:
        if kept and mass >= row.top_p * total:
            break
        kept.append(token)
        mass += weights[token]
    return [weights[token] / mass if token in kept else 0.0 for token in range(len(weights))]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.6},
        {"top_p": 0.05},
        {"top_k": 4, "top_p": 0.7, "temperature": 1.5},
        {"top_k": 1000, "top_p": 0.9},
    ],
    ids=str,
)
def test_frequencies_are_the_exact_probabilities(changes: dict[str, float]) -> None:
    """Evenly spaced uniforms invert the distribution, so counts are within one of exact, not just within noise."""
    row = replace(PLAIN, **changes)  # type: ignore[arg-type]
    logits = [0.3, 2.0, -1.0, 1.4, 0.0, 1.9, -3.0, 0.9]
    count = 4000
    rows = [replace(row, uniform=(index + 0.5) / count) for index in range(count)]
    chosen = sample(torch.tensor([logits] * count), rows).bincount(minlength=len(logits))
    exact = _exact(logits, row)
    for token, probability in enumerate(exact):
        assert abs(chosen[token].item() - probability * count) <= 1.01
        assert probability > 0 or chosen[token] == 0


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 1.0), st.integers(0, 60), st.floats(0.0, 1.0, exclude_max=True))
def test_truncation_keeps_only_allowed_tokens_of_a_large_vocabulary(
    seed: int, top_p: float, top_k: int, draw: float
) -> None:
    """3,000 nearly equal tokens: top-p needs far more than the first candidates looked at."""
    logits = torch.randn(1, 3000, generator=torch.Generator().manual_seed(seed)) * 0.1
    row = replace(PLAIN, top_p=top_p, top_k=top_k, uniform=draw)
    token = int(sample(logits.clone(), [row])[0])
    probabilities = logits[0].double().softmax(0)
    rank = int((probabilities > probabilities[token]).sum())
    better = probabilities.sort(descending=True).values[:rank].sum()
    mass = probabilities.topk(top_k).values.sum() if top_k else 1.0
    assert top_k == 0 or rank < top_k
    assert rank == 0 or better < top_p * mass + 1e-5


def test_greedy_takes_the_best_token_and_bans_are_respected() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]] * 3)
    greedy = replace(PLAIN, temperature=0.0)
    rows = [greedy, replace(greedy, banned=frozenset({1})), replace(PLAIN, uniform=0.999, banned=frozenset({1, 2}))]
    assert sample(logits, rows).tolist() == [1, 2, 0]


def test_a_row_does_not_depend_on_its_batch() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(7, 2000, generator=generator)
    rows = [
        replace(PLAIN, uniform=0.31),
        replace(PLAIN, temperature=0.0),
        replace(PLAIN, top_p=0.9, uniform=0.77),
        replace(PLAIN, top_k=5, uniform=0.5),
        replace(PLAIN, top_k=1500, top_p=0.99, uniform=0.9),
        replace(PLAIN, temperature=1e-9),
        replace(PLAIN, top_p=1e-9, uniform=0.99),
    ]
    together = sample(logits.clone(), rows).tolist()
    apart = [int(sample(logits[i : i + 1].clone(), [row])[0]) for i, row in enumerate(rows)]
    assert together == apart
    assert together[5] == int(logits[5].argmax())
    assert together[6] == int(logits[6].argmax())


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_choose_possible_tokens(draw: float) -> None:
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]])
    assert int(sample(logits, [replace(PLAIN, uniform=draw)])[0]) == (1 if draw == 0 else 2)


def test_uniforms_are_uniform_and_streams_differ() -> None:
    values = torch.tensor([[uniform(seed, index) for index in range(500)] for seed in range(-5, 15)])
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean().item() - 0.5) < 0.015
    assert torch.histc(values, bins=10).sub(1000).abs().max() < 150
    correlation = torch.corrcoef(values).fill_diagonal_(0).abs().max()
    assert correlation < 0.2
    assert uniform(2**64 - 1, 0) != uniform(2**63, 0)
