"""The loader's errors and liberties where a family's tensors are not the decoder's: fused, transposed, by expert."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BloomConfig,
    DeepseekV3Config,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    MixtralConfig,
    MptConfig,
    PretrainedConfig,
)

from serving_image.errors import StartupError
from tests.serving_image.generation import boot_engine, generate, start
from tests.serving_image.models.families.case import VOCAB_SIZE, Case, transformers_case
from tests.serving_image.models.families.engine import load, run

PROMPT = list(range(20))

GPT2 = transformers_case(
    "gpt2", GPT2Config, n_embd=48, n_inner=100, n_layer=2, n_head=3, n_positions=64, bos_token_id=1, eos_token_id=2
)
_MIXTRAL = {
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "max_position_embeddings": 64,
}
MIXTRAL = transformers_case("mixtral", MixtralConfig, **_MIXTRAL)


def _write(case: Case, folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """The case's checkpoint with changed tensors."""
    case.write(folder)
    file = folder / "model.safetensors"
    tensors: dict[str, Tensor] = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})
    return folder


def _scores(folder: Path) -> Tensor:
    return run(load(folder), [PROMPT], new_tokens=0)[0].scores


def test_a_missing_part_of_a_transposed_projection_is_named(tmp_path: Path) -> None:
    folder = _write(GPT2, tmp_path, lambda tensors: tensors.pop("transformer.h.1.attn.c_attn.weight"))
    with pytest.raises(StartupError, match=r"lacks transformer\.h\.1\.attn\.c_attn\.weight\."):
        load(folder)


def test_the_shape_that_is_asked_for_is_the_one_to_be_stored(tmp_path: Path) -> None:
    def transpose(tensors: dict[str, Tensor]) -> None:
        tensors["transformer.h.0.mlp.c_fc.weight"] = tensors["transformer.h.0.mlp.c_fc.weight"].t().contiguous()

    folder = _write(GPT2, tmp_path, transpose)
    with pytest.raises(StartupError, match=r"c_fc\.weight \[100, 48\] instead of \[48, 100\]"):
        load(folder)


def test_a_tensor_is_named_as_it_is_in_its_file(tmp_path: Path) -> None:
    """This checkpoint leaves the prefix out, as the oldest of the family do."""

    def strip(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.ln_1.weight"] = torch.ones(47)

    folder = _write(GPT2, tmp_path, strip)
    with pytest.raises(StartupError, match=r"wrong shape for h\.0\.ln_1\.weight \[47\] instead of \[48\]"):
        load(folder)


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    name = "model.layers.1.block_sparse_moe.experts.2.w3.weight"
    folder = _write(MIXTRAL, tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(StartupError, match=rf"lacks {name}\."):
        load(folder)


def test_an_expert_too_many_is_named(tmp_path: Path) -> None:
    name = "model.layers.0.block_sparse_moe.experts.4.w1.weight"
    folder = _write(MIXTRAL, tmp_path, lambda tensors: tensors.update({name: torch.ones(24, 32)}))
    with pytest.raises(StartupError, match=rf"has unexpected {name}\."):
        load(folder)


def test_an_expert_of_another_shape_is_named(tmp_path: Path) -> None:
    name = "model.layers.0.block_sparse_moe.experts.3.w2.weight"
    folder = _write(MIXTRAL, tmp_path, lambda tensors: tensors.update({name: torch.ones(32, 23)}))
    with pytest.raises(StartupError, match=rf"{name} \[32, 23\] instead of \[32, 24\]"):
        load(folder)


@pytest.mark.parametrize("case", [GPT2, transformers_case("tied", MixtralConfig, **_MIXTRAL, tie_word_embeddings=True)])
def test_a_copy_of_a_tied_output_layer_changes_nothing(case: Case, tmp_path: Path) -> None:
    without = _scores(_write(case, tmp_path / "without", lambda tensors: tensors.pop("lm_head.weight", None)))

    def add_copy(tensors: dict[str, Tensor]) -> None:
        embedding = next(name for name in tensors if name.endswith(("wte.weight", "embed_tokens.weight")))
        tensors["lm_head.weight"] = tensors[embedding].clone()

    assert torch.equal(_scores(_write(case, tmp_path / "with", add_copy)), without)


def test_an_output_layer_that_is_not_tied_must_be_there(tmp_path: Path) -> None:
    folder = _write(MIXTRAL, tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(StartupError, match=r"lacks lm_head\.weight\."):
        load(folder)


def test_experts_in_many_files_are_those_of_one(tmp_path: Path) -> None:
    folder = _write(MIXTRAL, tmp_path, lambda _: None)
    whole = _scores(folder)
    tensors: dict[str, Tensor] = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for part in range(3):
        shard = folder / f"model-{part}.safetensors"
        save_file({name: tensors[name] for name in names[part::3]}, shard, {"format": "pt"})
    assert torch.equal(_scores(folder), whole)


_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}

TYPICAL: list[PretrainedConfig] = [
    GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64),
    BloomConfig(hidden_size=32, n_layer=2, n_head=4, tie_word_embeddings=False),
    MptConfig(d_model=32, n_layers=2, n_heads=4, max_seq_len=64, tie_word_embeddings=False),
    MixtralConfig(**_MIXTRAL),
    Gemma2Config(**_SIZES, intermediate_size=48, num_key_value_heads=2, head_dim=8, sliding_window=16),
    GptOssConfig(**_SIZES, intermediate_size=24, num_key_value_heads=2, head_dim=8, num_local_experts=4),
    DeepseekV3Config(
        **_SIZES,
        intermediate_size=48,
        moe_intermediate_size=16,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
    ),
]


@pytest.mark.parametrize("config", TYPICAL, ids=[config.model_type for config in TYPICAL])
def test_dummy_weights_boot_every_kind_of_architecture(config: PretrainedConfig, tmp_path: Path) -> None:
    config.vocab_size = VOCAB_SIZE
    name = {"gpt2": "GPT2LMHeadModel"}.get(config.model_type, type(config).__name__.replace("Config", "ForCausalLM"))
    config.architectures = [name]
    config.save_pretrained(tmp_path)
    first, again, other = (generate(start(tmp_path, load_format="dummy", seed=seed), PROMPT, 20) for seed in (1, 1, 2))
    assert first == again != other


def test_dummy_weights_ask_for_no_file(tmp_path: Path) -> None:
    GPT2Config(
        vocab_size=VOCAB_SIZE, n_embd=32, n_layer=1, n_head=4, architectures=["GPT2LMHeadModel"]
    ).save_pretrained(tmp_path)
    with pytest.raises(StartupError, match="try --load-format dummy"):
        boot_engine(tmp_path)
    assert len(generate(start(tmp_path, load_format="dummy"), PROMPT, 3)) == 3
