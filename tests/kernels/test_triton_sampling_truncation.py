"""What min-p, top-k and top-p keep is exactly what the reference keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.gpu import trying
from kernels.sampling import SamplingRows, reference
from kernels.sampling.triton.best import choose, empty_best
from kernels.sampling.triton.draw import draw
from kernels.sampling.triton.truncation import truncate
from tests.kernels.sampling_batch import Asked, Batch, ask

_CUTS = {
    "few": {"few": 1024, "candidates": 2048, "tile": 2048, "num_warps": 4},
    "many": {"few": 16, "candidates": 2048, "tile": 2048, "num_warps": 4},
    "flat": {"few": 16, "candidates": 32, "tile": 128, "num_warps": 4},
}
"""Tile shapes that send small rows through each way of finding a cutoff."""

_PARAMS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.05, 0.7, 1.0, 4.0]),
        "min_p": st.sampled_from([0.0, 0.0, 1e-4, 0.03, 0.4, 1.0]),
        "top_k": st.sampled_from([0, 0, 1, 4, 60, 300, 3000]),
        "top_p": st.sampled_from([1.0, 0.999, 0.95, 0.8, 0.5, 0.1, 1e-7]),
    }
)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """What nobody wrote is NaN, or the greatest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def _kept(logits: torch.Tensor, asked: list[Asked], device: torch.device) -> torch.Tensor:
    tokens = torch.zeros(len(asked), 8, dtype=torch.int32, device=device)
    rows = SamplingRows(tokens, logits.shape[1])
    rows.admit({row: each.sampling for row, each in enumerate(asked)})
    row_of = torch.arange(len(asked), dtype=torch.int32, device=device)
    on_device = logits.to(device)
    kept = truncate(on_device, row_of, row_of + 1, rows.state, empty_best(on_device))
    cutoff = kept.cutoff.cpu()
    return (logits >= cutoff[:, None]) & (logits > -math.inf)


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([1, 5, 64, 777, 1300]),
    st.integers(0, 2**31),
    st.sampled_from([0.05, 1.0, 5.0]),
    st.sampled_from([None, 3]),
    st.lists(_PARAMS, min_size=1, max_size=3),
    st.sampled_from(list(_CUTS)),
)
def test_kept_tokens_are_those_of_the_reference(
    gpu: torch.device,
    vocab: int,
    seed: int,
    spread: float,
    decimals: int | None,
    drawn: list[dict[str, Any]],
    way: str,
) -> None:
    """All but tokens so close to a cutoff that float32 cannot tell; with rounded scores, among many equal ones."""
    logits = torch.randn(len(drawn), vocab, generator=torch.Generator().manual_seed(seed)) * spread
    logits = logits if decimals is None else logits.mul(decimals).round().div(decimals)
    asked = [ask(**params) for params in drawn]
    with trying("sampling", "cut", "all", _CUTS[way]):
        kept = _kept(logits, asked, gpu)
    for mine, scores, each in zip(kept, logits, asked, strict=True):
        request = each.sampling
        if not request._replace(top_k=request.top_k if request.top_k < vocab else 0).truncates:
            continue
        assert mine[scores.argmax()]
        if not torch.equal(mine, reference.kept(scores, request)):
            tighter = request._replace(top_p=max(0.0, request.top_p - 1e-5), min_p=request.min_p * (1 + 1e-5))
            wider = request._replace(top_p=min(1.0, request.top_p + 1e-5), min_p=request.min_p * (1 - 1e-5))
            assert (reference.kept(scores, tighter) <= mine).all()
            assert (mine <= reference.kept(scores, wider)).all()


@pytest.mark.parametrize("way", _CUTS)
@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"top_k": 1}, 2),
        ({"top_k": 3}, 4),
        ({"top_k": 99, "min_p": 0.1}, 6),
        ({"top_p": 0.1}, 2),
        ({"top_p": 0.65}, 4),
        ({"min_p": 1.0}, 2),
        ({"min_p": 0.4}, 4),
        ({"min_p": 0.4, "top_p": 0.9}, 4),
        ({"min_p": 0.4, "top_p": 0.6}, 2),
        ({"top_k": 3, "top_p": 0.6}, 2),
        ({"top_p": 0.6}, 4),
    ],
    ids=str,
)
def test_ties_and_order(gpu: torch.device, params: dict[str, Any], kept: int, way: str) -> None:
    """0.28 twice, 0.17 twice, 0.05 twice: equals stay together, and top-p counts within what the others left."""
    scores = torch.tensor([0.05, 0.28, 0.17, 0.28, 0.17, 0.05]).log()
    best_first = scores.argsort(descending=True, stable=True)
    with trying("sampling", "cut", "all", _CUTS[way]):
        mine = _kept(scores[None], [ask(**params)], gpu)
    assert mine[0, best_first].tolist() == [True] * kept + [False] * (6 - kept)


def test_hundreds_of_equals_at_the_cutoff_stay_together(gpu: torch.device) -> None:
    """More than there is room for: no range of keys is left to divide."""
    scores = torch.zeros(2, 400)
    scores[:, 7], scores[:, 300:] = 2.0, -0.0
    with trying("sampling", "cut", "all", _CUTS["flat"]):
        assert _kept(scores, [ask(top_k=5), ask(top_p=0.5)], gpu).all()


@pytest.mark.parametrize("top_p", [0.2, 0.5, 0.8, 0.97])
def test_one_possible_token_in_every_group(gpu: torch.device, top_p: float) -> None:
    """There the bound on what top-p can need is nearly its cutoff: it must not be above."""
    scores = torch.full((1, 64 * 30), -math.inf)
    scores[0, ::64] = torch.linspace(0, -3, 30)
    kept = _kept(scores, [ask(top_p=top_p)], gpu)
    assert torch.equal(kept[0], reference.kept(scores[0], ask(top_p=top_p).sampling))


def test_impossible_tokens_do_not_count(gpu: torch.device) -> None:
    scores = torch.tensor([[-math.inf, 0.0, -math.inf, 0.1, 0.2]])
    for way in _CUTS.values():
        with trying("sampling", "cut", "all", way):
            kept = _kept(scores, [ask(top_k=4, top_p=0.99)], gpu)
        assert kept[0].tolist() == [False, True, False, True, True]


def test_scores_of_any_size(gpu: torch.device) -> None:
    """Differences beyond what an exponential tells apart, on both sides of zero."""
    scores = torch.cat([torch.linspace(-1e30, 1e30, 300), torch.tensor([3e38, -3e38, 1e-40, -1e-40])])[None]
    for way in _CUTS.values():
        with trying("sampling", "cut", "all", way):
            for k in (1, 2, 151, 303):
                kept = _kept(scores, [ask(top_k=k)], gpu)
                assert torch.equal(kept[0], reference.kept(scores[0], ask(top_k=k).sampling))


def test_rows_without_truncation_draw_from_all_beside_rows_that_have_it(gpu: torch.device) -> None:
    logits = torch.zeros(16, 200)
    logits[:, 17] = 0.5
    asked = [ask(seed=seed, top_k=seed % 2) for seed in range(16)]
    chosen = Batch(asked, logits, gpu).sample()
    assert set(chosen[1::2]) == {17}
    assert len(set(chosen[0::2])) > 4


def test_what_parts_of_a_drawn_row_held_before_does_not_count(gpu: torch.device) -> None:
    """Truncation draws its token; the programs that share the row have to say that they found none."""
    logits = torch.zeros(1, 5000, device=gpu)
    rows = SamplingRows(torch.zeros(1, 8, dtype=torch.int32, device=gpu), 5000)
    rows.admit({0: ask(top_k=3).sampling})
    logits[0, 4321] = 50.0
    row_of = torch.zeros(1, dtype=torch.int32, device=gpu)
    best = empty_best(logits)
    best.scores.fill_(math.inf)
    assert best.scores.shape[1] > 1
    kept = truncate(logits, row_of, row_of + 1, rows.state, best)
    draw(logits, row_of, row_of + 1, rows.state, kept, best)
    assert choose(best, row_of, row_of + 1, rows.state).tolist() == [4321]
