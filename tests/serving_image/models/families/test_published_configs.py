"""``config.json`` as it was published, often years ago, in the fields and spellings of its day.

``published/tiny`` keeps fields and values but for sizes, which are of few and narrow layers; the truth is what
Transformers reads in the same file. ``published/whole`` are models with code of their own, as they are; the truth is
their size: the published one, or the sum of its matrices by hand.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from serving_image.models.parameters import parameter_specs
from serving_image.models.registry import ModelFolder
from tests.serving_image.models.families.case import VOCAB_SIZE, perturb, transformers_reference
from tests.serving_image.models.families.engine import load, run

PUBLISHED = Path(__file__).parent / "published"
TINY = sorted((PUBLISHED / "tiny").iterdir())

PARAMETERS = {
    "AquilaChat2-7B": 7_295_537_152,
    "Baichuan2-13B-Chat": 13_896_668_160,
    "Baichuan2-7B-Chat": 7_505_973_248,
    "EXAONE-3.0-7.8B-Instruct": 7_818_448_896,
    "MiniCPM-2B-sft-bf16": 2_724_880_896,
    "Orion-14B-Chat": 14_498_703_360,
    "Qwen-7B-Chat": 7_721_324_544,
    "XVERSE-13B": 13_715_031_040,
    "chatglm2-6b": 6_243_584_000,
    "chatglm3-6b": 6_243_584_000,
    "glm-4-9b-chat": 9_399_951_360,
    "internlm-chat-7b": 7_321_948_160,
    "internlm2-chat-7b": 7_737_708_544,
    "internlm3-8b-instruct": 8_804_241_408,
    "jais-13b-chat": 13_020_811_920,
}


@pytest.mark.parametrize("published", TINY, ids=[file.stem for file in TINY])
def test_scores_are_those_of_transformers(published: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(published.read_bytes())
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    perturb(model)
    model.save_pretrained(tmp_path)
    file.write_bytes(published.read_bytes())
    tokens = torch.randint(0, VOCAB_SIZE, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    (computed,) = run(load(tmp_path), [[*tokens, 0]], new_tokens=0)
    expected = transformers_reference(model)(tokens)
    torch.testing.assert_close(computed.scores, expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_as_many_parameters_as_published(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((PUBLISHED / "whole" / f"{name}.json").read_bytes())
    specs = parameter_specs(ModelFolder.open(tmp_path).decoder)
    assert sum(torch.Size(spec.shape).numel() for spec in specs.values()) == PARAMETERS[name]
