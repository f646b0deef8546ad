"""What is folded into weights or kept wide costs nothing in bfloat16: the scores are as near to those of float32 as
Transformers' own in bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.serving_image.models.families.all_cases import CASES_OF
from tests.serving_image.models.families.case import VOCAB_SIZE, transformers_reference
from tests.serving_image.models.families.engine import load, run

FOLDED_OR_WIDE = ("gemma", "gemma2", "gemma3", "granite", "nemotron", "cohere", "cohere2", "apertus")


@pytest.mark.parametrize("family", FOLDED_OR_WIDE)
def test_scores_are_as_near_as_transformers(family: str, tmp_path: Path) -> None:
    tokens = torch.randint(0, VOCAB_SIZE, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    truth = CASES_OF[family][0].write(tmp_path)(tokens)
    rounded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager").eval()
    (computed,) = run(load(tmp_path, torch.bfloat16), [[*tokens, 0]], new_tokens=0)
    # Both are sums of many roundings, so they differ by luck too.
    assert _error(computed.scores, truth) <= 1.2 * _error(transformers_reference(rounded)(tokens), truth)


def _error(scores: Tensor, truth: Tensor) -> float:
    return float((scores - truth).norm() / truth.norm())
