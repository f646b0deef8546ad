"""Mixtures as their configurations were published have as many parameters as their cards say.

``published/mixtures`` has the fields and spellings of the published files, but for gpt-oss's quantization, which is
refused, and Phi's rotary factors, which are all 1 here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serving_image.models.parameters import parameter_specs
from serving_image.models.registry import ModelFolder

MIXTURES = Path(__file__).parent / "published" / "mixtures"

PARAMETERS = {
    "DeepSeek-V2-Lite-Chat": 15_706_484_224,
    "Mixtral-8x7B-Instruct-v0.1": 46_702_792_704,
    "OLMoE-1B-7B-0924-Instruct": 6_919_161_856,
    "Phi-3.5-MoE-instruct": 41_873_153_344,
    "Qwen1.5-MoE-A2.7B-Chat": 14_315_784_192,
    "Qwen3-30B-A3B": 30_532_122_624,
    "dbrx-instruct": 131_596_523_520,
    "gpt-oss-20b": 20_914_757_184,
    "granite-3.0-1b-a400m-instruct": 1_334_628_352,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_mixture_has_as_many_parameters_as_published(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((MIXTURES / f"{name}.json").read_bytes())
    specs = parameter_specs(ModelFolder.open(tmp_path).decoder)
    assert sum(torch.Size(spec.shape).numel() for spec in specs.values()) == PARAMETERS[name]
