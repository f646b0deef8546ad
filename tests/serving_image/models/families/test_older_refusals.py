"""What the older families' flags could ask for and nobody serves is refused by name; what only sizes or names tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

from serving_image.errors import StartupError
from serving_image.models.parameters import parameter_specs
from serving_image.models.registry import ModelFolder
from serving_image.models.tensor_names import Computed
from tests.serving_image.models.families.case import VOCAB_SIZE, transformers_case
from tests.serving_image.models.families.engine import load

_GPT2 = {"n_embd": 32, "n_head": 4, "n_layer": 1}
_LLAMA = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 40}
_MPT = {"d_model": 32, "n_heads": 4, "n_layers": 1}


def _block(**attention: Any) -> dict[str, Any]:
    return {"block_configs": [{"attention": attention, "ffn": {"no_op": True}}]}


REFUSED = [
    ("GPT2LMHeadModel", _GPT2 | {"add_cross_attention": True}, "add_cross_attention"),
    ("GPT2LMHeadModel", _GPT2 | {"activation_function": "mish"}, "mish"),
    ("GPTBigCodeForCausalLM", _GPT2 | {"add_cross_attention": True}, "add_cross_attention"),
    ("GPTJForCausalLM", _GPT2 | {"rotary_dim": 10}, "rotary_dim 10"),
    ("CodeGenForCausalLM", _GPT2 | {"n_head": 2, "rotary_dim": 4}, "4 shards"),
    ("GPTNeoForCausalLM", _LLAMA | {"attention_types": [[["global"], 1]]}, "attention_types"),
    ("GPTNeoForCausalLM", _LLAMA | {"attention_layers": ["global", "local"]}, "2 entries for 1 layers"),
    ("GPTNeoForCausalLM", _LLAMA | {"attention_layers": ["dilated"]}, "dilated"),
    ("FalconForCausalLM", _LLAMA | {"new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn"),
    ("FalconForCausalLM", _LLAMA | {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn"),
    ("Starcoder2ForCausalLM", _LLAMA | {"mlp_type": "gated"}, "mlp_type"),
    ("Starcoder2ForCausalLM", _LLAMA | {"norm_type": "rms_norm"}, "norm_type"),
    ("XGLMForCausalLM", {"add_cross_attention": True}, "add_cross_attention"),
    ("MPTForCausalLM", _MPT | {"attn_config": {"rope": True}}, "rope"),
    ("MPTForCausalLM", _MPT | {"attn_config": {"prefix_lm": True}}, "prefix_lm"),
    ("MPTForCausalLM", _MPT | {"norm_type": "rmsnorm"}, "rmsnorm"),
    ("MPTForCausalLM", _MPT | {"ffn_config": {"ffn_type": "mptglu"}}, "ffn_type"),
    ("MPTForCausalLM", _MPT | {"logit_scale": "sqrt"}, "logit_scale"),
    ("JAISLMHeadModel", _GPT2 | {"alibi_scaling": {"type": "linear", "factor": 2}}, "alibi_scaling"),
    ("JAISLMHeadModel", _GPT2 | {"position_embedding_type": "rotary"}, "position_embedding_type"),
    ("QWenLMHeadModel", _LLAMA | {"visual": {"layers": 48}}, "visual"),
    ("DeciLMForCausalLM", _LLAMA, "block_configs"),
    ("DeciLMForCausalLM", _LLAMA | {"num_key_value_heads_per_layer": [2, 2]}, "num_key_value_heads_per_layer"),
    ("DeciLMForCausalLM", _LLAMA | _block(replace_with_linear=True), "replace_with_linear"),
    ("DeciLMForCausalLM", _LLAMA | _block(n_heads_in_group=3), "n_heads_in_group 3"),
    ("DeciLMForCausalLM", _LLAMA | _block(n_heads_in_group=2, window_length=8), "window_length"),
    ("DeciLMForCausalLM", _LLAMA | _block(no_op=True), "no layer has attention"),
]


def _open(folder: Path, architecture: str, fields: dict[str, Any]) -> ModelFolder:
    config = {"architectures": [architecture], "vocab_size": VOCAB_SIZE} | fields
    (folder / "config.json").write_text(json.dumps(config))
    return ModelFolder.open(folder)


@pytest.mark.parametrize(("architecture", "fields", "named"), REFUSED, ids=[f"{case[0]}-{case[2]}" for case in REFUSED])
def test_what_is_not_served_is_refused_by_name(
    architecture: str, fields: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(StartupError, match=named):
        _open(tmp_path, architecture, fields)


@pytest.mark.parametrize(("vocabulary", "is_normalised"), [(64000, False), (125696, True)])
def test_baichuan_2_is_known_by_its_vocabulary(vocabulary: int, is_normalised: bool, tmp_path: Path) -> None:
    model = _open(tmp_path, "BaichuanForCausalLM", _LLAMA | {"vocab_size": vocabulary})
    assert model.description is not None
    origin = model.description.names.origin("lm_head.weight", parameter_specs(model.decoder)["lm_head.weight"])
    assert not isinstance(origin, Computed)
    lengths = origin[0].transform.apply(torch.tensor([[3.0, 4.0], [0.0, 0.5]])).norm(dim=1)
    assert lengths.tolist() == ([1.0, 1.0] if is_normalised else [5.0, 0.5])


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    transformers_case("", GPT2Config, n_embd=32, n_layer=1, n_head=2, n_positions=40).write(tmp_path)
    file = tmp_path / "model.safetensors"
    stored = load_file(file)
    save_file(stored | {"ln_f.bias": torch.zeros(32)}, file, {"format": "pt"})
    with pytest.raises(StartupError, match=r"stores one tensor twice: .*ln_f\.bias"):
        load(tmp_path)
