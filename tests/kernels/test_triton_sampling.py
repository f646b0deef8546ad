"""The tokens that the GPU sampler chooses: exactly those of the reference, whose noise is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.gpu import trying
from kernels.sampling import logprobs, reference, sample
from kernels.sampling.triton.noise import gumbel, gumbel_of
from tests.kernels.sampling_batch import Asked, Batch, ask

_NO_FIXTURE_CHECK = [HealthCheck.function_scoped_fixture]
_PARAMS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.2, 1.0, 3.0]),
        "min_p": st.sampled_from([0.0, 0.02, 0.5]),
        "top_k": st.sampled_from([0, 1, 5, 150]),
        "top_p": st.sampled_from([1.0, 0.9, 0.31]),
        "seed": st.integers(-(2**63), 2**64),
    }
)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """What nobody wrote is NaN, or the greatest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def _near(logits: torch.Tensor, asked: Asked, token: int) -> bool:
    """Whether float32 could mistake ``token`` for the reference's choice."""
    request = asked.sampling
    if request.greedy:
        return False
    scores = logits.double() / request.temperature
    scores += reference.gumbel(request.seed, asked.num_output, len(logits))
    best = scores[reference.sample(logits, request, asked.num_output)]
    wider = request._replace(top_p=min(1.0, request.top_p + 1e-5), min_p=request.min_p * (1 - 1e-5))
    tighter = request._replace(top_p=request.top_p - 1e-5, min_p=request.min_p * (1 + 1e-5))
    disputed = reference.kept(logits, wider) != reference.kept(logits, tighter)
    return bool((best - scores[token]).abs() < 1e-3 or disputed.any())


@settings(deadline=None, max_examples=20, derandomize=True, suppress_health_check=_NO_FIXTURE_CHECK)
@given(
    st.sampled_from([1, 3, 64, 257, 1024, 1100]),
    st.integers(0, 2**31),
    st.sampled_from([0.1, 1.0, 8.0]),
    st.lists(_PARAMS, min_size=1, max_size=3),
)
def test_tokens_are_those_of_the_reference(
    gpu: torch.device, vocab: int, seed: int, spread: float, drawn: list[dict[str, Any]]
) -> None:
    logits = torch.randn(len(drawn), vocab, generator=torch.Generator().manual_seed(seed)) * spread
    asked = [ask(output=[0] * i, **params) for i, params in enumerate(drawn)]
    chosen = Batch(asked, logits, gpu).sample()
    for token, scores, each in zip(chosen, logits, asked, strict=True):
        expected = reference.sample(scores, each.sampling, each.num_output)
        assert token == expected or _near(scores, each, token)


def test_random_tokens_follow_the_softmax(gpu: torch.device) -> None:
    """Chi-squared over 400 seeds; 43 is exceeded by chance once in 10⁸ with the 4 degrees of freedom there are."""
    logits = torch.tensor([0.3, 1.0, -0.5, 0.9, 0.0])
    batch = Batch([ask(seed=seed) for seed in range(400)], logits.expand(400, -1), gpu)
    with trying("sampling", "draw", "all", {"tile": 8, "programs_per_multiprocessor": 1, "num_warps": 1}):
        counts = torch.tensor(batch.sample()).bincount(minlength=5)
    expected = logits.softmax(dim=0) * 400
    assert ((counts - expected) ** 2 / expected).sum() < 43


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_of_which_nothing_can_be_chosen_fail_alone(gpu: torch.device, temperature: float) -> None:
    """NaN, +inf or nothing but -inf among the scores."""
    good = torch.randn(300, generator=torch.Generator().manual_seed(1))
    nan, overflow = good.clone(), good.clone()
    nan[200], overflow[299] = math.nan, math.inf
    logits = torch.stack([good, nan, good, overflow, torch.full_like(good, -math.inf), good])
    params: tuple[dict[str, Any], ...] = ({}, {"top_k": 40, "top_p": 0.9, "min_p": 0.01}, {"top_p": 0.5})
    for each in params:
        asked = [ask(temperature=temperature, seed=i, **each) for i in range(6)]
        chosen = Batch(asked, logits, gpu).sample()
        assert [token == -1 for token in chosen] == [False, True, False, True, True, False]
        for i in (0, 2, 5):
            assert chosen[i] == Batch([asked[i]], logits[i : i + 1], gpu).sample()[0]


def test_of_equal_best_tokens_the_first_is_taken(gpu: torch.device) -> None:
    """However small the temperature; also where programs share a row, or tiles a program."""
    logits = torch.zeros(3, 5000)
    logits[:, [700, 701, 1724, 4100]] = 3.0
    asked = [ask(temperature=0), ask(temperature=9e-6), ask(temperature=0, top_p=0.1, top_k=9)]
    for programs in (0, 8):
        tile = {"tile": 1024, "programs_per_multiprocessor": programs, "num_warps": 4}
        with trying("sampling", "draw", "all", tile):
            assert Batch(asked, logits, gpu).sample() == [700, 700, 700]


def test_a_token_depends_on_its_seed_and_its_place_alone(gpu: torch.device) -> None:
    asked = [
        ask(seed=5, output=[1, 2]),
        ask(prompt=[7, 8, 9], seed=5, output=[3, 4]),
        ask(seed=5, output=[1, 2, 3]),
        ask(seed=6, output=[1, 2]),
        ask(seed=5 + 2**32, output=[1, 2]),
        ask(seed=5 + 2**64, output=[1, 2]),
    ]
    first, same, *others, wrapped = Batch(asked, torch.zeros(6, 1000), gpu).sample()
    assert same == wrapped == first
    assert len({first, *others}) == 4


def test_a_row_is_the_same_in_any_batch(gpu: torch.device) -> None:
    """Beside others, and with the row cut up otherwise."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 1500, generator=generator) * 2
    asked = [ask(seed=i, top_k=i % 2 * 30, top_p=1 - i % 3 * 0.1, temperature=1 + i / 3) for i in range(6)]
    together = Batch(asked, logits, gpu).sample(truncates=True)
    for programs in (0, 1):
        tile = {"tile": 256, "programs_per_multiprocessor": programs, "num_warps": 1}
        with (
            trying("sampling", "draw", "all", tile),
            trying("sampling", "survey", "all", {"tile": 128, "num_warps": 2}),
            trying("sampling", "gather", "all", {"tile": 256, "programs_per_multiprocessor": programs, "num_warps": 1}),
            trying("sampling", "cut", "all", {"few": 64, "candidates": 128, "tile": 512, "num_warps": 4}),
        ):
            alone = [Batch([each], scores[None], gpu).sample()[0] for each, scores in zip(asked, logits, strict=True)]
        assert together == alone


def test_an_only_possible_token_is_drawn(gpu: torch.device) -> None:
    """Whatever its noise, and wherever it is."""
    logits = torch.full((12, 1030), -math.inf)
    logits[torch.arange(12), torch.arange(12) * 91] = torch.linspace(-1e4, 1e4, 12)
    assert Batch([ask(seed=i) for i in range(12)], logits, gpu).sample() == [i * 91 for i in range(12)]


def test_a_full_row_of_tokens_takes_no_more(gpu: torch.device) -> None:
    """A step that was launched before the request's end was known: the token is chosen, but has no place."""
    batch = Batch([ask(temperature=0)], torch.tensor([[0.0, 1.0]]), gpu)
    position = torch.tensor([batch.tokens.shape[1]], dtype=torch.int32, device=gpu)
    before = batch.tokens.clone()
    row_of = torch.tensor([1], dtype=torch.int32, device=gpu)
    logits = torch.tensor([[0.0, 1.0]], device=gpu)
    assert sample(logits, row_of, position, batch.rows.state, False).tolist() == [1]
    assert torch.equal(batch.tokens, before)


def test_no_rows(gpu: torch.device) -> None:
    batch = Batch([ask()], torch.zeros(1, 7), gpu)
    nothing = torch.empty(0, dtype=torch.int32, device=gpu)
    logits = torch.empty(0, 7, device=gpu)
    assert sample(logits, nothing, nothing, batch.rows.state, True).shape == (0,)
    assert logprobs(logits, nothing, 3).top_ids.shape == (0, 3)


@triton.jit  # type: ignore[untyped-decorator]
def _write_noise(noise: tl.tensor, again: tl.tensor, seed: tl.tensor, generated: tl.tensor, TILE: tl.constexpr) -> None:
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    tl.store(noise + at, gumbel(seed, generated, tl.program_id(0) * TILE, TILE))
    tl.store(again + at, gumbel_of(seed, generated, at))


def test_noise_is_that_of_the_reference_in_the_rarest_cases_too(gpu: torch.device) -> None:
    """Among 128,000 tokens the luckiest has a uniform of about 10⁻⁵, of which float32's 1 - u leaves two digits."""
    count, seed = 125 * 1024, 2**40 + 9
    noise, again = torch.full((2, count), math.nan, device=gpu)
    _write_noise[(125,)](noise, again, seed, 7, TILE=1024)
    assert torch.equal(noise, again)
    # All are off by the logarithm of ln 2, which is nothing to who is best.
    expected = reference.gumbel(seed, 7, count) / math.log(2) + math.log2(math.log(2))
    difference = (noise.cpu().double() - expected).abs()
    assert difference[expected > -2].max() < 2e-5
    # Who has no luck will hardly be drawn: there, float32's rounding of u may show.
    assert difference.max() < 1e-2
