"""The decoder under Llama's configuration gives Transformers' tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving_image.errors import StartupError
from serving_image.models.registry import ModelFolder
from tests.serving_image.checkpoints import (
    ROPE_VARIANTS,
    edit_config,
    random_prompt,
    transformers_greedy,
    write_checkpoint,
)
from tests.serving_image.generation import boot_engine, generate, start


@pytest.mark.parametrize("variant", ROPE_VARIANTS)
@pytest.mark.parametrize("prompt_length", [5, 40], ids=["within", "beyond"])
def test_every_rotary_scaling_matches_transformers(tmp_path: Path, variant: str, prompt_length: int) -> None:
    folder = write_checkpoint(tmp_path, rope_parameters=dict(ROPE_VARIANTS[variant]), max_position_embeddings=64)
    if variant == "dynamic":
        edit_config(folder, max_position_embeddings=32)
    prompt = random_prompt(prompt_length, seed=1)
    expected = transformers_greedy(folder, prompt, 20)
    assert generate(start(folder), prompt, 20) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4},
        {"head_dim": 32},
    ],
    ids=str,
)
def test_every_variant_of_the_architecture_matches_transformers(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = write_checkpoint(tmp_path, **changes)
    prompt = random_prompt(17, seed=2)
    assert generate(start(folder), prompt, 20) == transformers_greedy(folder, prompt, 20)


def test_a_sharded_checkpoint_matches_transformers(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    prompt = random_prompt(17, seed=3)
    assert generate(start(folder), prompt, 10) == transformers_greedy(folder, prompt, 10)


@pytest.mark.parametrize("variant", ["llama3", "linear", "yarn"])
def test_the_older_spelling_of_rotary_settings_means_the_same(tmp_path: Path, variant: str) -> None:
    newer = write_checkpoint(tmp_path / "newer", rope_parameters=dict(ROPE_VARIANTS[variant]))
    older = write_checkpoint(tmp_path / "older", rope_parameters=dict(ROPE_VARIANTS[variant]))
    scaling = dict(ROPE_VARIANTS[variant])
    theta = scaling.pop("rope_theta")
    scaling["type"] = scaling.pop("rope_type")
    edit_config(older, rope_parameters=None, rope_scaling=scaling, rope_theta=theta)
    assert ModelFolder.open(older).decoder == ModelFolder.open(newer).decoder


def test_bfloat16_logits_stay_within_rounding_of_transformers(tmp_path: Path) -> None:
    """Greedy tokens may differ at near ties, so the first token of many prompts is compared, most of which agree."""
    folder = write_checkpoint(tmp_path)
    core = start(folder, dtype="bfloat16")
    prompts = [random_prompt(12, seed) for seed in range(20)]
    agreed = sum(generate(core, prompt, 1) == transformers_greedy(folder, prompt, 1) for prompt in prompts)
    assert agreed >= 17


def test_context_beyond_training_follows_the_scaling(tmp_path: Path) -> None:
    dynamic = write_checkpoint(tmp_path / "dynamic", rope_parameters=dict(ROPE_VARIANTS["dynamic"]))
    assert ModelFolder.open(dynamic).decoder.max_position == 512
    yarn = write_checkpoint(tmp_path / "yarn", rope_parameters=dict(ROPE_VARIANTS["yarn"]), max_position_embeddings=16)
    assert ModelFolder.open(yarn).decoder.max_position == 64


def test_the_engine_counts_parameters_as_the_checkpoint_does(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, tie_word_embeddings=True, attention_bias=True)
    ready = boot_engine(folder).ready
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert ready.parameters * 4 == pytest.approx(size, rel=0.05)
    assert ready.vocab_size == 256


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architectures": ["FluxForCausalLM"]}, "it is not a causal language model that Transformers knows"),
        (
            {"architectures": ["MambaForCausalLM"]},
            "MambaForCausalLM is not supported: it is a state-space or recurrent",
        ),
        ({"architectures": ["T5ForConditionalGeneration"]}, "it is an encoder-decoder"),
        ({"architectures": ["RobertaForMaskedLM"]}, "it is an encoder, which generates no text"),
        ({"architectures": None}, "does not name an architecture"),
        ({"hidden_size": "wide"}, "hidden_size must be a positive whole number, not 'wide'"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_key_value_heads": 3}, "4 attention heads over 3 key/value heads"),
        ({"hidden_act": "swoosh"}, 'hidden_act is "swoosh"; supported: silu'),
        ({"rope_parameters": {"rope_type": "spiral"}}, 'rotary scaling "spiral" is not supported'),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_parameters": [1]}, "rope_parameters must be an object"),
        ({"quantization_config": {"quant_method": "gptq"}}, 'quantized with "gptq"'),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_configuration_that_cannot_be_served_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    folder = write_checkpoint(tmp_path)
    edit_config(folder, **changes)
    with pytest.raises(StartupError) as caught:
        ModelFolder.open(folder)
    assert says in str(caught.value)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"has no config\.json"):
        ModelFolder.open(tmp_path)
    with pytest.raises(StartupError, match="is not a folder"):
        ModelFolder.open(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StartupError, match="cannot be read"):
        ModelFolder.open(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(StartupError, match="is not a JSON object"):
        ModelFolder.open(tmp_path)
