"""Log-probabilities, ranks and best tokens on a GPU, against the reference in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.gpu import trying
from kernels.sampling import Logprobs, logprobs, reference


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """What nobody wrote is NaN, or the greatest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def _report(logits: torch.Tensor, chosen: torch.Tensor, num_top: int, device: torch.device) -> Logprobs:
    """With NaN beyond the vocabulary."""
    padded = torch.full((len(logits), -(-(logits.shape[1] + 1) // 16) * 16), math.nan)
    padded[:, : logits.shape[1]] = logits
    on_device = padded.to(device, copy=True)
    report = logprobs(on_device[:, : logits.shape[1]], chosen.to(device), num_top)
    torch.testing.assert_close(on_device.cpu(), padded, rtol=0, atol=0, equal_nan=True)
    return Logprobs(*(part.cpu() for part in report))


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([1, 3, 64, 65, 1000, 3000]),
    st.integers(0, 2**31),
    st.sampled_from([0, 1, 5, 20, 32, 33, 100]),
    st.integers(1, 3),
    st.sampled_from([None, 3]),
)
def test_reports_are_those_of_the_reference(
    gpu: torch.device, vocab: int, seed: int, num_top: int, num_rows: int, decimals: int | None
) -> None:
    """With rounded scores, among many equal ones: then ids tell whether the lower come first."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, vocab, generator=generator) * 5
    logits = logits if decimals is None else logits.div(decimals).round()
    chosen = torch.randint(vocab, (num_rows,), generator=generator, dtype=torch.int32)
    with trying("sampling", "rank", "all", {"tile": 512, "num_warps": 1}):
        report = _report(logits, chosen, num_top, gpu)
    expected = reference.logprobs(logits, chosen, num_top)
    assert torch.equal(report.rank, expected.rank)
    assert torch.equal(report.top_ids, expected.top_ids)
    torch.testing.assert_close(report.chosen, expected.chosen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(report.top, expected.top, rtol=1e-5, atol=1e-5)


def test_equal_tokens_share_the_worst_of_their_ranks(gpu: torch.device) -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]] * 5)
    assert _report(logits, torch.arange(5, dtype=torch.int32), 0, gpu).rank.tolist() == [1, 4, 4, 4, 5]


@pytest.mark.parametrize("num_top", [3, 40])
def test_impossible_tokens_and_poisoned_rows(gpu: torch.device, num_top: int) -> None:
    logits = torch.zeros(4, 50)
    logits[0, 1:], logits[1, 7], logits[2, 7] = -math.inf, math.nan, math.inf
    impossible, nan, overflow, clean = range(4)
    report = _report(logits, torch.tensor([1, 0, 0, 0], dtype=torch.int32), num_top, gpu)
    assert report.chosen[impossible] == -math.inf
    assert report.rank[impossible] == 50
    assert report.top[impossible].tolist() == [0.0] + [-math.inf] * (num_top - 1)
    assert report.top_ids[impossible].tolist() == list(range(num_top))
    for row in (nan, overflow):
        assert report.chosen[row].isnan()
        assert report.top[row].isnan().all()
    assert report.chosen[clean].item() == pytest.approx(-math.log(50))


def test_a_failed_rows_choice_is_no_token(gpu: torch.device) -> None:
    """And spoils nothing: -1 is what sampling gives where nothing can be chosen."""
    logits = torch.tensor([[0.0, 1.0], [3.0, 3.0]])
    report = _report(logits, torch.tensor([-1, 1], dtype=torch.int32), 1, gpu)
    assert report.chosen[1].item() == pytest.approx(-math.log(2))
    assert report.top_ids.tolist() == [[1], [0]]
