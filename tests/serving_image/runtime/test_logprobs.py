"""Reported log-probabilities and ranks, against NumPy in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_image.runtime.sampler import token_logprobs


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.sampled_from([1, 3, 128, 1000, 20_000]), st.integers(0, 2**31), st.integers(0, 25), st.integers(1, 4))
def test_reports_are_exact(vocab: int, seed: int, num_top: int, num_rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, vocab, generator=generator) * 5
    token_ids = torch.randint(vocab, (num_rows,), generator=generator).tolist()
    reports = token_logprobs(logits, token_ids, num_top)
    scores = logits.numpy().astype(np.float64)
    logprobs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    for report, token_id, exact in zip(reports, token_ids, logprobs, strict=True):
        assert report.token_id == token_id
        assert report.logprob == pytest.approx(exact[token_id], abs=1e-4)
        assert report.top_logprobs == pytest.approx(np.sort(exact)[::-1][:num_top].tolist(), abs=1e-4)
        assert exact[report.top_ids] == pytest.approx(report.top_logprobs, abs=1e-4)
        assert len(set(report.top_ids)) == min(num_top, vocab)
        # Two scores may be one log-probability once rounded, nothing more.
        assert (exact > exact[token_id] + 1e-4).sum() + 1 <= report.rank <= (exact >= exact[token_id] - 1e-4).sum()


def test_equal_tokens_share_the_worst_of_their_ranks() -> None:
    """As vLLM counts: the tokens that are at least as probable."""
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]] * 5)
    assert [report.rank for report in token_logprobs(logits, [0, 1, 2, 3, 4], 0)] == [1, 4, 4, 4, 5]


def test_many_positions_are_as_each_alone() -> None:
    """More than are worked on at a time."""
    logits = torch.randn(150, 300, generator=torch.Generator().manual_seed(8))
    token_ids = [i % 300 for i in range(150)]
    together = token_logprobs(logits, token_ids, 4)
    assert together == [token_logprobs(logits[i : i + 1], token_ids[i : i + 1], 4)[0] for i in range(150)]


def test_impossible_tokens_and_poisoned_rows() -> None:
    logits = torch.tensor([[0.0, -math.inf, 0.0], [0.0, math.nan, 0.0], [0.0, 0.0, 0.0]])
    impossible, poisoned, clean = token_logprobs(logits, [1, 0, 0], 3)
    assert impossible.logprob == -math.inf
    assert impossible.rank == 3
    assert impossible.top_logprobs[-1] == -math.inf
    assert math.isnan(poisoned.logprob)
    assert clean.logprob == pytest.approx(-math.log(3))
    assert token_logprobs(torch.zeros(0, 7), [], 2) == []
