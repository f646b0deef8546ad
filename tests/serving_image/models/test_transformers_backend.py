"""What the decoder does not have runs through Transformers, on the same scheduler and paged cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PretrainedConfig

from serving_image.errors import StartupError
from serving_image.models.registry import ModelFolder, native_architectures
from tests.serving_image.generation import boot_engine, generate, greedy_request, run_to_end, tokens_by_request
from tests.serving_image.models.families.case import VOCAB_SIZE, Case, transformers_case
from tests.serving_image.models.families.engine import load, run

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}


def _case(config: str, **settings: Any) -> Case:
    config_class: type[PretrainedConfig] = getattr(transformers, config)
    return transformers_case(config, config_class, **(SIZES | settings))


CASES = [
    _case("NanoChatConfig"),  # a softcap on the logits, after the output layer
    _case("VaultGemmaConfig", head_dim=16, sliding_window=20),  # windows and a softcap in attention
    _case(
        "Glm4MoeConfig", **EXPERTS, head_dim=16, n_routed_experts=8, n_group=1, topk_group=1, first_k_dense_replace=1
    ),
    _case("CwmConfig", head_dim=16, sliding_window=20),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_scores_equal_transformers(case: Case, tmp_path: Path) -> None:
    reference = case.write(tmp_path)
    assert ModelFolder.open(tmp_path).config.architecture not in native_architectures()
    model = load(tmp_path)
    prompts = [torch.randint(0, VOCAB_SIZE, (length,)).tolist() for length in (1, 37, 150)]
    for result in run(model, prompts, 8, chunks=(5, 64)):
        expected = reference(result.tokens)[:-1]
        torch.testing.assert_close(result.scores, expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)


def test_the_engine_batches_chunks_and_preempts_it_as_any_model(tmp_path: Path) -> None:
    CASES[0].write(tmp_path)
    prompts = [torch.randint(0, VOCAB_SIZE, (length,)).tolist() for length in (3, 20, 28, 31)]
    roomy = boot_engine(tmp_path).core
    expected = [generate(roomy, prompt, 60) for prompt in prompts]
    bytes_per_block = 2 * 2 * 2 * 8 * 32 * 4
    tight = boot_engine(tmp_path, kv_cache_memory=8 * bytes_per_block, max_num_batched_tokens=32).core
    for index, prompt in enumerate(prompts):
        assert tight.add(greedy_request(str(index), prompt, 60)) is None
    outputs, steps = run_to_end(tight)
    assert tokens_by_request(outputs) == {str(index): tokens for index, tokens in enumerate(expected)}
    assert steps[-1].stats.num_preemptions > 0


def test_random_weights_need_no_files(tmp_path: Path) -> None:
    CASES[0].write(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    first, again = (generate(boot_engine(tmp_path, load_format="dummy").core, [1, 2, 3], 8) for _ in range(2))
    assert first == again


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    CASES[0].write(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(StartupError, match=r"lacks model\.layers\.1\.self_attn\.k_proj\.weight"):
        boot_engine(tmp_path)


@pytest.mark.parametrize(
    ("config", "settings", "says"),
    [
        ("Lfm2Config", {"layer_types": ["conv", "full_attention"]}, "only 1 of its 2 layers attend"),
        ("RecurrentGemmaConfig", {"lru_width": 48}, "RecurrentGemmaForCausalLM is not supported"),
    ],
)
def test_what_is_not_all_attention_is_refused_before_its_weights_are_read(
    tmp_path: Path, config: str, settings: dict[str, Any], says: str
) -> None:
    theirs = getattr(transformers, config)(**(SIZES | settings))
    theirs.architectures = [config.replace("Config", "ForCausalLM")]
    theirs.save_pretrained(tmp_path)
    with pytest.raises(StartupError, match=says):
        boot_engine(tmp_path)


def test_remote_code_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    (tmp_path / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w')")
    (tmp_path / "config.json").write_text(
        '{"architectures": ["EvilForCausalLM"], "model_type": "evil", '
        '"auto_map": {"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}}'
    )
    with pytest.raises(StartupError, match="EvilForCausalLM is not supported"):
        boot_engine(tmp_path)
    assert not marker.exists()
