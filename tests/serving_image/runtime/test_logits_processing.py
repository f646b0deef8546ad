"""Constraints, bias and penalties against Transformers' processors and plain Python."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from serving_image.runtime.logits_processing import process_logits
from serving_image.runtime.sampling_row import SamplingRow
from tests.serving_image.runtime.sampling import row

VOCAB = 40
_TOKEN = st.integers(0, VOCAB - 1)
_ROW = st.fixed_dictionaries(
    {
        "prompt": st.lists(_TOKEN, min_size=1, max_size=30),
        "output": st.lists(_TOKEN, max_size=30),
        "allowed_token_ids": st.one_of(st.none(), st.lists(_TOKEN, min_size=1, max_size=30)),
        "bad_words": st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), max_size=8),
        "min_tokens": st.integers(0, 20),
        "stop_token_ids": st.frozensets(_TOKEN, max_size=3),
        "logit_bias": st.dictionaries(_TOKEN, st.floats(-100, 100, width=32), max_size=5),
        "repetition_penalty": st.sampled_from([1.0, 0.7, 1.2, 2.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.6, -1.5]),
        "presence_penalty": st.sampled_from([0.0, 1.1, -0.3]),
    }
)


def _expected(logits: torch.Tensor, row: SamplingRow) -> torch.Tensor:
    """One processor after another, for one row."""
    params = row.params
    tokens = torch.tensor([list(row.tokens)])
    output = tokens[:, row.num_prompt_tokens :]
    scores = logits[None].clone()
    if params.allowed_token_ids is not None:
        forbidden = sorted(set(range(VOCAB)) - set(params.allowed_token_ids))
        scores = SuppressTokensLogitsProcessor(forbidden)(tokens, scores)
    if params.bad_words:
        scores = NoBadWordsLogitsProcessor(params.bad_words)(output, scores)
    if params.min_tokens and params.stop_token_ids:
        shortest = MinNewTokensLengthLogitsProcessor(
            row.num_prompt_tokens, params.min_tokens, list(params.stop_token_ids)
        )
        scores = shortest(tokens, scores)
    for token, bias in params.logit_bias.items():
        scores[0, token] += bias
    scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(tokens, scores)
    for token, count in Counter(output[0].tolist()).items():
        scores[0, token] -= params.frequency_penalty * count + params.presence_penalty
    return scores[0]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 2**31), st.lists(_ROW, min_size=1, max_size=5))
def test_processed_scores_are_those_of_independent_processors(seed: int, drawn: list[dict[str, Any]]) -> None:
    rows = [row(**each) for each in drawn]
    logits = torch.randn(len(rows), VOCAB, generator=torch.Generator().manual_seed(seed)) * 4
    processed = logits.clone()
    process_logits(processed, rows)
    expected = torch.stack([_expected(*each) for each in zip(logits, rows, strict=True)])
    torch.testing.assert_close(processed, expected, rtol=1e-6, atol=1e-5)


def _banned(**params: Any) -> list[int]:
    logits = torch.zeros(1, 10)
    process_logits(logits, [row(**params)])
    return logits[0].isinf().nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("prompt", "output", "banned"),
    [([1, 2], [], []), ([1], [2], []), ([1], [1, 2], [3]), ([9], [1, 2, 2], []), ([9], [0, 1, 2], [3])],
)
def test_a_bad_word_must_begin_in_the_output(prompt: list[int], output: list[int], banned: list[int]) -> None:
    assert _banned(prompt=prompt, output=output, bad_words=[[1, 2, 3]]) == banned


def test_a_bad_word_of_one_token_is_always_banned_and_an_empty_one_is_nothing() -> None:
    assert _banned(bad_words=[[4], []]) == [4]


def test_stop_tokens_are_banned_until_min_tokens_are_there() -> None:
    assert _banned(output=[5], min_tokens=2, stop_token_ids=frozenset({3, 8})) == [3, 8]
    assert _banned(output=[5, 5], min_tokens=2, stop_token_ids=frozenset({3, 8})) == []


def test_ids_outside_the_vocabulary_name_no_token() -> None:
    """Neither an error nor, counted from the end, some other token; however large."""
    outside = [-1, 10, 2**63]
    assert _banned(min_tokens=1, stop_token_ids=frozenset(outside)) == []
    assert _banned(bad_words=[[token] for token in outside]) == []
    assert _banned(logit_bias=dict.fromkeys(outside, float("-inf"))) == []
    assert _banned(allowed_token_ids=[2, *outside]) == [0, 1, *range(3, 10)]
    assert _banned(prompt=[10], output=[11, 3], repetition_penalty=2.0, presence_penalty=float("inf")) == [3]


def test_rows_that_ask_for_nothing_are_untouched() -> None:
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    before = logits.clone()
    process_logits(logits, [row(), row(output=[1, 1], frequency_penalty=1.0, allowed_token_ids=[1]), row(output=[4])])
    assert torch.equal(logits[[0, 2]], before[[0, 2]])
    assert logits[1, 1] == before[1, 1] - 2
