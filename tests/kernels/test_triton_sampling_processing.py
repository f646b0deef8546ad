"""Constraints, bias and penalties on a GPU, against the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.gpu import trying
from kernels.sampling import reference
from tests.kernels.sampling_batch import Asked, Batch, ask

VOCAB = 70
_TILES = {"tile": 32, "programs_per_multiprocessor": 0, "num_warps": 1}
"""One part of three tiles, the last of them not full."""

_TOKEN = st.integers(0, VOCAB - 1)
_ANY = st.one_of(_TOKEN, st.sampled_from([-1, VOCAB, 2**63]))
_ROW = st.fixed_dictionaries(
    {
        "prompt": st.lists(_TOKEN, min_size=1, max_size=9),
        "output": st.lists(st.integers(0, 5), max_size=9),
        "allowed_token_ids": st.one_of(st.none(), st.lists(_ANY, min_size=1, max_size=30)),
        "bad_words": st.lists(st.lists(st.one_of(st.integers(0, 5), _ANY), max_size=3), max_size=6),
        "min_tokens": st.integers(0, 12),
        "stop_token_ids": st.frozensets(_ANY, max_size=3),
        "logit_bias": st.dictionaries(_ANY, st.floats(-100, 100, width=32), max_size=5),
        "repetition_penalty": st.sampled_from([1.0, 0.7, 1.2, 2.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.6, -1.5]),
        "presence_penalty": st.sampled_from([0.0, 1.1, -0.3]),
    }
)


def _agree(asked: list[Asked], logits: torch.Tensor, device: torch.device) -> torch.Tensor:
    with trying("sampling", "process", "all", _TILES):
        processed = Batch(asked, logits, device).process()
    expected = [
        reference.process_logits(scores, each.sampling, each.tokens) for scores, each in zip(logits, asked, strict=True)
    ]
    torch.testing.assert_close(processed, torch.stack(expected), rtol=1e-6, atol=1e-5)
    return processed


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.lists(_ROW, min_size=1, max_size=3))
def test_processed_scores_are_those_of_the_reference(gpu: torch.device, seed: int, drawn: list[dict[str, Any]]) -> None:
    logits = torch.randn(len(drawn), VOCAB, generator=torch.Generator().manual_seed(seed)) * 4
    _agree([ask(**each) for each in drawn], logits, gpu)


def _banned(device: torch.device, **params: Any) -> list[int]:
    return _agree([ask(**params)], torch.zeros(1, VOCAB), device)[0].isinf().nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("prompt", "output", "banned"),
    [([1, 2], [], []), ([1], [2], []), ([1], [1, 2], [3]), ([9], [1, 2, 2], []), ([9], [0, 1, 2], [3])],
)
def test_a_bad_word_must_begin_in_the_output(
    gpu: torch.device, prompt: list[int], output: list[int], banned: list[int]
) -> None:
    assert _banned(gpu, prompt=prompt, output=output, bad_words=[[1, 2, 3]]) == banned


def test_hundreds_of_rules_of_each_kind(gpu: torch.device) -> None:
    """More than are looked at together, with gaps, in no order."""
    vocab = 1000
    some = torch.randperm(vocab, generator=torch.Generator().manual_seed(4)).tolist()
    asked = [
        ask(logit_bias={token: token / 7 for token in some[:300]}),
        ask(min_tokens=1, stop_token_ids=some[:300]),
        ask(output=[3], bad_words=[[3, token] for token in some[:300]] + [[4, token] for token in some[300:]]),
        ask(allowed_token_ids=some[:300], logit_bias=dict.fromkeys(some[200:400], -1.0)),
    ]
    logits = torch.randn(4, vocab, generator=torch.Generator().manual_seed(5))
    with trying("sampling", "process", "all", {"tile": 256, "programs_per_multiprocessor": 8, "num_warps": 1}):
        processed = Batch(asked, logits, gpu).process()
    for mine, scores, each in zip(processed, logits, asked, strict=True):
        torch.testing.assert_close(mine, reference.process_logits(scores, each.sampling, each.tokens))


def test_penalties_that_are_infinite_ban_and_no_more(gpu: torch.device) -> None:
    penalties = {"presence_penalty": math.inf, "frequency_penalty": math.inf, "repetition_penalty": 2.0}
    with trying("sampling", "process", "all", _TILES):
        processed = Batch([ask(prompt=[5, 6], output=[3], **penalties)], torch.ones(1, VOCAB), gpu).process()
    assert processed[0].isinf().nonzero()[:, 0].tolist() == [3]
    assert processed[0, [4, 5, 6, 7]].tolist() == [1.0, 0.5, 0.5, 1.0]


def test_rows_that_ask_for_nothing_are_untouched(gpu: torch.device) -> None:
    """Not even the NaN in them."""
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    logits[0, 3] = math.nan
    asked = [ask(), ask(output=[1, 1], frequency_penalty=1.0, allowed_token_ids=[1]), ask(min_tokens=9)]
    with trying("sampling", "process", "all", _TILES):
        processed = Batch(asked, logits, gpu).process()
    torch.testing.assert_close(processed[[0, 2]], logits[[0, 2]], rtol=0, atol=0, equal_nan=True)
    assert processed[1, 1] == logits[1, 1] - 2


def test_what_is_sampled_counts_from_then_on(gpu: torch.device) -> None:
    """Token by token, each step penalised by what the one before chose, without the host having a part in it."""
    logits = torch.tensor([[1.0, 0.9, 0.85, 0.0]])
    asked = ask(prompt=[0], temperature=0.0, frequency_penalty=0.1, presence_penalty=0.02, bad_words=[[2, 1]])
    batch, tokens, expected = Batch([asked], logits, gpu), [0], [0]
    for _ in range(8):
        step = reference.process_logits(logits[0], asked.sampling, expected)
        expected.append(reference.sample(step, asked.sampling, len(expected) - 1))
        batch.load(logits)
        batch.process()
        tokens += batch.sample()
        batch.advance()
    assert tokens == expected
    assert set(tokens) == {0, 1, 2}


def test_a_row_is_its_new_requests_alone(gpu: torch.device) -> None:
    """Nothing of what the request before had in it: rules, counts, permissions."""
    batch = Batch([ask(output=[1], presence_penalty=2.0, allowed_token_ids=[1], logit_bias={1: 3.0})] * 2, _PAIR, gpu)
    batch.rows.release([1])
    batch.rows.admit({1: ask(output=[1], presence_penalty=1.0).sampling})
    assert batch.rows.processes([1])
    processed = batch.process()
    assert processed[0].tolist() == [-math.inf, 1.0 + 3.0 - 2.0, -math.inf]
    assert processed[1].tolist() == [1.0, 0.0, 1.0]
    batch.rows.release([1])
    batch.rows.admit({1: ask(temperature=0).sampling})
    assert not batch.rows.processes([1])
    assert not batch.rows.truncates([1])
    assert batch.rows.processes([1, 2])


_PAIR = torch.ones(2, 3)
