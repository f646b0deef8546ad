"""Every family's scores at every position, and its greedy tokens, equal an independent implementation's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.serving_image.models.families.all_cases import CASES_OF
from tests.serving_image.models.families.case import VOCAB_SIZE, Case
from tests.serving_image.models.families.engine import load, run

NEW_TOKENS = 24
PROMPT_LENGTHS = (1, 37, 150)

CASES = [case for cases in CASES_OF.values() for case in cases]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_scores_and_greedy_tokens_equal_the_reference(case: Case, tmp_path: Path) -> None:
    reference = case.write(tmp_path)
    decoder = load(tmp_path)
    lengths = [min(length, case.max_tokens - NEW_TOKENS) for length in PROMPT_LENGTHS]
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(0, VOCAB_SIZE, (length,), generator=generator).tolist() for length in lengths]
    alone = [run(decoder, [prompt], NEW_TOKENS)[0] for prompt in prompts]
    together = run(decoder, prompts, NEW_TOKENS, chunks=(5, 64))
    for length, one, other in zip(lengths, alone, together, strict=True):
        expected = reference(one.tokens)[:-1]
        tolerance = {"atol": 5e-5 * float(expected.abs().max()), "rtol": 0}
        torch.testing.assert_close(one.scores, expected, **tolerance)
        # Each token is the best after those before it, so all of them are the reference's greedy ones.
        assert one.tokens[length:] == expected[length - 1 :].argmax(dim=1).tolist()
        assert other.tokens == one.tokens
        torch.testing.assert_close(other.scores, expected, **tolerance)


@pytest.mark.parametrize("family", CASES_OF)
def test_a_family_has_two_configurations(family: str) -> None:
    assert len({case.name for case in CASES_OF[family]}) >= 2
