"""Drawn tokens follow the distribution that was asked for, reproducibly, whatever else is in the batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from serving_image.engine.protocol import TokenLogprobs
from serving_image.runtime.sampler import sample, uniform
from tests.serving_image.runtime.sampling import assert_drawn_from, draw, row, tokens

LOGITS = torch.tensor([0.3, 2.0, -1.0, 1.4, 0.0, 1.9, -3.0, 0.9])


def _transformers_probabilities(
    logits: torch.Tensor, temperature: float = 1.0, min_p: float = 0.0, top_k: int = 0, top_p: float = 1.0
) -> torch.Tensor:
    """The distribution by Transformers' warpers, in vLLM's order."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    return warpers(torch.zeros(1, 1, dtype=torch.long), logits[None].double())[0].softmax(0)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.6},
        {"top_p": 0.05},
        {"min_p": 0.3},
        {"top_k": 4, "top_p": 0.7, "temperature": 1.5, "min_p": 0.1},
        {"top_k": 1000, "top_p": 0.9},
    ],
    ids=str,
)
def test_frequencies_follow_transformers_distribution(params: dict[str, Any]) -> None:
    """Chi-squared over 8,000 seeds; 50 is exceeded by chance once in 10⁸ with the 7 degrees of freedom there are."""
    probabilities = _transformers_probabilities(LOGITS, **params)
    counts = draw(LOGITS, 8_000, **params)
    expected = probabilities * counts.sum()
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 50


_TRUNCATIONS = st.fixed_dictionaries(
    {
        "temperature": st.floats(0.2, 3.0),
        "min_p": st.sampled_from([0.0, 0.02, 0.5, 1.0]),
        "top_k": st.sampled_from([0, 1, 5, 150, 2000]),
        "top_p": st.sampled_from([1.0, 0.999, 0.9, 0.31, 1e-6]),
    }
)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.sampled_from([1, 2, 7, 127, 128, 129, 300, 1000]),
    st.integers(0, 2**31),
    st.sampled_from([0.1, 1.0, 4.0]),
    _TRUNCATIONS,
)
def test_any_parameters_over_any_vocabulary(vocab: int, seed: int, spread: float, params: dict[str, Any]) -> None:
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * spread
    assert_drawn_from(_transformers_probabilities(logits, **params), draw(logits, 500, **params))


def test_greedy_takes_the_first_best_token_however_small_the_temperature() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0]] * 3)
    assert (
        tokens(logits, [row(temperature=0), row(temperature=9e-6), row(temperature=0, top_p=0.1, top_k=9)]) == [1] * 3
    )


def test_constraints_bind_greedy_and_random_alike() -> None:
    greedy = {"temperature": 0.0}
    rows = [
        row(**greedy, min_tokens=1, stop_token_ids=frozenset({1})),
        row(**greedy, output=[2], min_tokens=1, stop_token_ids=frozenset({1})),
        row(**greedy, logit_bias={0: 10.0}),
        row(**greedy, output=[1, 1], frequency_penalty=1.0),
        row(**greedy, allowed_token_ids=[0]),
        row(allowed_token_ids=[0]),
        row(allowed_token_ids=[0, 2], bad_words=[[0]]),
    ]
    assert tokens(torch.tensor([[1.0, 3.0, 2.0]] * 7), rows) == [2, 1, 0, 2, 0, 0, 2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_of_which_nothing_can_be_chosen_fails_alone(temperature: float) -> None:
    """NaN, +inf or nothing but -inf among the scores, or constraints that leave no token."""
    good = torch.randn(300, generator=torch.Generator().manual_seed(1))
    nan, overflow = good.clone(), good.clone()
    nan[200], overflow[299] = math.nan, math.inf
    logits = torch.stack([good, nan, good, overflow, torch.full_like(good, -math.inf), good, good, good])
    params: dict[str, Any] = {"temperature": temperature, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "logprobs": 2}
    contradictory = {"allowed_token_ids": [5, 6], "bad_words": [[5]], "min_tokens": 1, "stop_token_ids": frozenset({6})}
    rows = [row(seed=i, **params) for i in range(5)]
    rows += [row(**params, **contradictory), row(**params, allowed_token_ids=[300, -1]), row(seed=7, **params)]
    chosen = sample(logits.clone(), rows)
    assert [i for i, token in enumerate(chosen) if token is not None] == [0, 2, 7]
    for i in (0, 2, 7):
        assert chosen[i] == sample(logits[i : i + 1].clone(), [rows[i]])[0]


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.tensor([-math.inf, 0.0, 0.0, -math.inf])
    counts = draw(logits, 2000)
    assert counts.tolist()[0::3] == [0, 0]
    assert_drawn_from(torch.tensor([0.0, 0.5, 0.5, 0.0]), counts)


@pytest.mark.parametrize(
    ("params", "kept"),
    [({"top_k": 2}, [0, 1, 2]), ({"top_p": 0.5}, [0, 1, 2]), ({"min_p": 1.0}, [0]), ({"top_p": 0.85}, [0, 1, 2, 3])],
    ids=str,
)
def test_equal_tokens_stay_together(params: dict[str, Any], kept: list[int]) -> None:
    """Probabilities 0.4, 0.2, 0.2, 0.1, 0.05, 0.05: the second place is shared."""
    weights = torch.tensor([0.4, 0.2, 0.2, 0.1, 0.05, 0.05])
    expected = torch.zeros(6).index_copy_(0, torch.tensor(kept), weights[kept])
    assert_drawn_from(expected / expected.sum(), draw(weights.log(), 3000, **params))


_ROWS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 0, 1, 50, 5000]),
        "top_p": st.sampled_from([1.0, 1.0, 0.95, 0.2]),
        "min_p": st.sampled_from([0.0, 0.0, 0.05]),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
        "frequency_penalty": st.sampled_from([0.0, 0.7]),
        "presence_penalty": st.sampled_from([0.0, -0.4]),
        "logit_bias": st.sampled_from([{}, {0: 3.0, 40: -100.0}]),
        "allowed_token_ids": st.sampled_from([None, None, list(range(0, 50, 3))]),
        "bad_words": st.sampled_from([[], [[3], [2, 9]]]),
        "min_tokens": st.sampled_from([0, 9]),
        "stop_token_ids": st.sampled_from([frozenset(), frozenset({1, 4})]),
        "logprobs": st.sampled_from([None, 0, 3, 20]),
        "seed": st.integers(0, 2**63),
    }
)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    st.sampled_from([50, 1000, 4096, 32000]), st.integers(0, 2**31), st.lists(_ROWS, min_size=2, max_size=9), st.data()
)
def test_a_row_is_bitwise_the_same_in_any_batch(
    vocab: int, seed: int, drawn: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Tokens and log-probabilities alone, together, and beside others in another order."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(drawn), vocab, generator=generator) * 3
    rows = [row(prompt=[1, 2], output=[9, 2, 40, 40][: i % 5], **params) for i, params in enumerate(drawn)]
    together = sample(logits.clone(), rows)
    order = data.draw(st.permutations(range(len(rows))))
    shuffled = sample(logits[order].clone(), [rows[i] for i in order])
    for place, i in enumerate(order):
        assert sample(logits[i : i + 1].clone(), [rows[i]]) == [together[i]]
        assert shuffled[place] == together[i]


def test_a_token_depends_on_its_seed_and_its_place_alone() -> None:
    logits = torch.zeros(1, 1000)
    first = tokens(logits, [row(seed=5, output=[1, 2])])
    assert tokens(logits, [row(prompt=[7, 8, 9], seed=5, output=[3, 4])]) == first
    assert tokens(logits, [row(seed=5, output=[1, 2, 3])]) != first
    assert tokens(logits, [row(seed=6, output=[1, 2])]) != first


def test_log_probabilities_are_of_the_raw_scores() -> None:
    """Whatever decides the choice, what is reported comes from the model alone."""
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    params = {"temperature": 5.0, "top_k": 2, "logit_bias": {0: 100.0}, "logprobs": 2, "repetition_penalty": 2.0}
    (token,) = sample(logits.clone(), [row(prompt=[3], **params)])
    assert token is not None
    assert isinstance(token.logprobs, TokenLogprobs)
    assert token.token_id == token.logprobs.token_id == 0
    assert token.logprobs.rank == 4
    assert token.logprobs.top_ids == [3, 2]
    assert [token.logprobs.logprob, *token.logprobs.top_logprobs] == pytest.approx(
        [math.log(p) for p in (0.1, 0.4, 0.3)]
    )


def test_no_rows() -> None:
    assert sample(torch.zeros(0, 10), []) == []


def test_uniforms_are_uniform_and_streams_differ() -> None:
    values = torch.tensor([[uniform(seed, index) for index in range(500)] for seed in range(-5, 15)])
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean().item() - 0.5) < 0.015
    assert torch.histc(values, bins=10).sub(1000).abs().max() < 150
    correlation = torch.corrcoef(values).fill_diagonal_(0).abs().max()
    assert correlation < 0.2
    assert uniform(2**64 - 1, 0) != uniform(2**63, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_chooses_what_the_cpu_chooses() -> None:
    """Greedy tokens are the same; drawn ones too, but where rounding moves a boundary past a uniform: hardly ever."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(64, 5000, generator=generator) * 3
    rows = [
        row(seed=i, temperature=i % 4 / 2, top_p=0.9 + 0.1 * (i % 2), top_k=i % 3 * 20, logprobs=i % 6)
        for i in range(64)
    ]
    on_cpu, on_gpu = tokens(logits, rows), tokens(logits.cuda(), rows)
    assert on_cpu[0::4] == on_gpu[0::4]
    assert sum(a != b for a, b in zip(on_cpu, on_gpu, strict=True)) <= 1
