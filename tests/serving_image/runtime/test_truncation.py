"""What min-p, top-k and top-p leave is what Transformers' warpers leave, in vLLM's order."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from serving_image.runtime.truncation import truncate
from tests.serving_image.runtime.sampling import row

_PARAMS = st.fixed_dictionaries(
    {
        "min_p": st.one_of(st.just(0.0), st.floats(1e-6, 1.0)),
        "top_k": st.one_of(st.just(0), st.integers(1, 3000)),
        "top_p": st.one_of(st.just(1.0), st.floats(1e-3, 0.9999)),
    }
)


def _expected(logits: torch.Tensor, min_p: float, top_k: int, top_p: float) -> torch.Tensor:
    ids, scores = torch.zeros(1, 1, dtype=torch.long), logits[None].double()
    if min_p:
        scores = MinPLogitsWarper(min_p)(ids, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(ids, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(ids, scores)
    return scores[0].isfinite()


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.sampled_from([1, 5, 128, 777, 2500]),
    st.integers(0, 2**31),
    st.sampled_from([0.05, 1.0, 5.0]),
    st.lists(_PARAMS, min_size=1, max_size=5),
)
def test_kept_tokens_are_those_that_transformers_keeps(
    vocab: int, seed: int, spread: float, params: list[dict[str, Any]]
) -> None:
    """All but tokens so close to a cutoff that float32 cannot tell; what is kept keeps its score."""
    logits = torch.randn(len(params), vocab, generator=torch.Generator().manual_seed(seed)) * spread
    scores = logits.clone()
    truncate(scores, [row(**each) for each in params])
    for before, after, each in zip(logits, scores, params, strict=True):
        kept, expected = after.isfinite(), _expected(before, **each)
        assert torch.equal(after[kept], before[kept])
        assert kept[before.argmax()]
        disputed = before.double().softmax(0)[kept != expected]
        assert len(disputed) <= 1
        # One token at the edge of the nucleus: the sums around it differ from top_p by no more than rounding.
        if len(disputed):
            assert kept.sum() > 1
            tighter, wider = (_expected(before, **(each | {"top_p": each["top_p"] + step})) for step in (-1e-5, 1e-5))
            assert (tighter <= kept).all()
            assert (kept <= wider).all()


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"top_k": 1}, 2),
        ({"top_k": 3}, 4),
        ({"top_k": 99}, 6),
        ({"top_p": 0.1}, 2),
        ({"top_p": 0.65}, 4),
        ({"min_p": 1.0}, 2),
        ({"min_p": 0.4}, 4),
        ({"min_p": 0.4, "top_p": 0.9}, 4),
        ({"min_p": 0.4, "top_p": 0.55}, 2),
        ({}, 6),
    ],
    ids=str,
)
def test_ties_and_order(params: dict[str, Any], kept: int) -> None:
    """0.28 twice, 0.17 twice, 0.05 twice: equals stay together, and top-p counts within what min-p left."""
    scores = torch.tensor([[0.05, 0.28, 0.17, 0.28, 0.17, 0.05]]).log()
    best_first = scores[0].argsort(descending=True, stable=True)
    truncate(scores, [row(**params)])
    assert scores[0, best_first].isfinite().tolist() == [True] * kept + [False] * (6 - kept)


def test_rows_without_truncation_are_left_alone_beside_rows_that_have_it() -> None:
    scores = torch.randn(4, 200, generator=torch.Generator().manual_seed(2))
    before = scores.clone()
    truncate(scores, [row(), row(top_k=3), row(), row(min_p=0.5, top_p=0.5)])
    assert torch.equal(scores[[0, 2]], before[[0, 2]])
    assert scores[1].isfinite().sum() == 3
    assert scores[3].isfinite().sum() < 200


def test_impossible_tokens_do_not_count() -> None:
    scores = torch.tensor([[-math.inf, 0.0, -math.inf, 0.1, 0.2]])
    truncate(scores, [row(top_k=4, top_p=0.99)])
    assert scores[0].isfinite().tolist() == [False, True, False, True, True]
