"""Sizing against numbers worked out by hand, and against the engine's own plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from control_plane.hub.config import ModelConfig, read_config
from control_plane.providers.base import HardwareOffer
from control_plane.sizing.cache import CacheLayout
from control_plane.sizing.memory import Memory, fit
from serving_image.models.registry import ModelFolder
from serving_image.options import EngineOptions
from serving_image.runtime.memory import plan_kv_cache

GIB = 1 << 30

LLAMA_8B_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
}


class Planned(NamedTuple):
    """What sizing asks of a model."""

    config: ModelConfig
    weight_bytes: int
    dtype: str | None = "bfloat16"


LLAMA_8B = Planned(read_config(LLAMA_8B_CONFIG), 16_060_522_496)


def offer(memory_bytes: int, accelerator: str = "NVIDIA H200", count: int = 1) -> HardwareOffer:
    return HardwareOffer("x", "test", "X", accelerator, count, memory_bytes, 1.0, True)


def test_llama_8b_by_hand() -> None:
    """On an 80 GiB GPU in bfloat16.

    Keys and values: 2 × 32 layers × 8 heads × 128 × 2 bytes = 131,072 bytes a token; 32 tokens a block = 4 MiB.
    A step: 2048 tokens × (6·4096 + 4·14336) × 2 bytes, the feed-forward part being the widest, and 64 × 128256 × 24
    bytes of logits. Besides, for 64 sequences: as much as a token of a step, 128 parts of 9/8 × 128 × 4 bytes for each
    of 32 heads, and 4 bytes for each of 8192 tokens and for each of 2 × 256 blocks.
    """
    activations = 2048 * (24_576 + 57_344) * 2 + 64 * 128_256 * 24
    assert activations == 532_545_536
    activations += 64 * (81_920 * 2 + 128 * 144 * 4 * 32 + 4 * 8192 + 4 * 512)
    assert activations == 696_254_464

    found = fit(LLAMA_8B, offer(80 * GIB), max_model_len=8192, concurrency=4)

    assert found.fits
    assert found.memory == Memory(
        weights=16_060_522_496, kv_cache=4 * 8192 * 131_072, activations=activations, overhead=700 << 20
    )
    # (80 GiB − 16,060,522,496 − 734,003,200) × 0.9 − 696,254,464 = 61,498,083,737 bytes: 14,662 blocks, 256 a sequence.
    assert found.max_sequences == 14_662 // 256 == 57
    assert (found.max_model_len, found.why_not) == (8192, None)


def test_a_small_gpu_gets_a_shorter_context_or_says_why_not() -> None:
    """Of 24 GiB are left (25,769,803,776 − 16,060,522,496 − 734,003,200) × 0.9 − 729,677,824 bytes: 1751 blocks."""
    default = fit(LLAMA_8B, offer(24 * GIB))
    assert (default.fits, default.max_model_len, default.max_sequences) == (True, 1751 * 32, 1)
    assert fit(LLAMA_8B, offer(24 * GIB), concurrency=4).max_model_len == 1751 // 4 * 32
    whole = fit(LLAMA_8B, offer(24 * GIB), max_model_len=131_072)
    assert (whole.fits, whole.max_sequences) == (False, 0)
    assert "shorter context" in (whole.why_not or "")
    tiny = fit(LLAMA_8B, offer(12 * GIB))
    assert not tiny.fits
    assert "weights need 15.0 GiB" in (tiny.why_not or "")
    assert "12.0 GiB" in (tiny.why_not or "")


@pytest.mark.parametrize(
    ("stored", "native_bfloat16", "growth"), [("bfloat16", False, 2), ("bfloat16", True, 1), ("float16", True, 2)]
)
def test_processors_compute_in_float32_what_they_cannot_do_well(
    stored: str, native_bfloat16: bool, growth: int
) -> None:
    cpu = replace(offer(128 * GIB, "cpu", 0), native_bfloat16=native_bfloat16)
    found = fit(LLAMA_8B._replace(dtype=stored), cpu, max_model_len=4096)
    assert found.memory is not None
    assert found.memory.weights == growth * LLAMA_8B.weight_bytes
    assert found.memory.kv_cache == 4096 * growth * 131_072


def test_one_engine_uses_one_device() -> None:
    assert not fit(LLAMA_8B, offer(12 * GIB, count=8)).fits


def test_as_few_devices_as_are_enough() -> None:
    """An engine that spreads a model: weights and cache are divided, what a step holds is not."""
    found = fit(LLAMA_8B, offer(12 * GIB, count=8), max_model_len=8192, device_counts=(1, 2, 4, 8))
    assert found.fits
    assert (found.accelerator_count, found.price_per_hour) == (2, 2.0)
    assert found.memory is not None
    assert (found.memory.weights, found.memory.kv_cache) == (LLAMA_8B.weight_bytes // 2, 8192 * 131_072 // 2)
    assert not fit(LLAMA_8B, offer(12 * GIB, count=1), max_model_len=8192, device_counts=(1, 2, 4, 8)).fits
    one_head = LLAMA_8B._replace(config=read_config(LLAMA_8B_CONFIG | {"num_key_value_heads": 1}))
    assert not fit(one_head, offer(12 * GIB, count=8), max_model_len=8192, device_counts=(1, 2, 4, 8)).fits


def test_a_cache_of_a_given_size_leaves_room_for_others() -> None:
    found = fit(LLAMA_8B, offer(80 * GIB), max_model_len=4096, kv_cache_memory=2 * GIB)
    assert found.fits
    assert found.max_sequences == 2 * GIB // (4096 * 131_072)
    assert found.memory is not None
    assert found.memory.kv_cache == 2 * GIB
    too_large = fit(LLAMA_8B, offer(24 * GIB), max_model_len=4096, kv_cache_memory=20 * GIB)
    assert not too_large.fits
    assert "20.0 GiB is more than" in (too_large.why_not or "")
    assert not fit(LLAMA_8B, offer(80 * GIB), max_model_len=4096, kv_cache_memory=GIB // 4).fits


def test_what_cannot_be_estimated_is_said() -> None:
    for model, reason in (
        (LLAMA_8B._replace(weight_bytes=0), "no weights"),
        (LLAMA_8B._replace(config=replace(LLAMA_8B.config, attention=())), "config.json"),
        (LLAMA_8B._replace(config=replace(LLAMA_8B.config, vocabulary=None)), "config.json"),
    ):
        found = fit(model, offer(80 * GIB))
        assert (found.fits, found.memory) == (False, None)
        assert reason in (found.why_not or "")
    beyond = fit(LLAMA_8B, offer(80 * GIB), max_model_len=200_000)
    assert "131,072" in (beyond.why_not or "")


@given(
    memory=st.integers(0, 200).map(lambda gib: gib * GIB),
    length=st.none() | st.integers(16, 131_072),
    concurrency=st.integers(1, 64),
    cpu=st.booleans(),
)
def test_more_memory_never_fits_less(memory: int, length: int | None, concurrency: int, cpu: bool) -> None:
    def planned(size: int) -> tuple[bool, int, int]:
        found = fit(
            LLAMA_8B,
            offer(size, "cpu" if cpu else "gpu"),
            max_model_len=length,
            concurrency=concurrency,
        )
        return found.fits, found.max_model_len or 0, found.max_sequences

    small, large = planned(memory), planned(memory + 10 * GIB)
    assert small[0] <= large[0]
    assert small[1] <= large[1]
    if small[1] == large[1]:
        assert small[2] <= large[2]


def test_windows_make_long_contexts_cheap() -> None:
    """Gemma 3's kind: five layers of six see 1024 tokens. Groups: one of full layers, five of windowed ones, each of 4.

    A windowed group holds (1024 + 2048 − 3) // 32 + 2 = 97 blocks at most, a full one 1024 for 32,768 tokens.
    """
    stated = {"model_type": "gemma3_text", "num_hidden_layers": 24, "sliding_window": 1024}
    model = LLAMA_8B._replace(config=read_config(LLAMA_8B_CONFIG | stated))
    found = fit(model, offer(80 * GIB), max_model_len=32_768)
    block = 32 * 4 * 2 * 8 * 128 * 2
    assert found.memory is not None
    assert found.memory.kv_cache == (1024 + 5 * 97) * block
    assert CacheLayout.of(model.config.attention).blocks(32_768) == 1509

    through_transformers = model._replace(config=replace(model.config, architectures=("VaultGemmaForCausalLM",)))
    whole = fit(through_transformers, offer(80 * GIB), max_model_len=32_768)
    assert whole.memory is not None
    assert whole.memory.kv_cache == 32_768 * 24 * 2 * 8 * 128 * 2


#: Of every kind of attention and feed-forward part: what memory follows from.
SHAPES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {"model_type": "mistral", "sliding_window": 4096},
    "Gemma2ForCausalLM": {"model_type": "gemma2", "sliding_window": 1024, "head_dim": 256, "num_hidden_layers": 26},
    "Gemma3ForCausalLM": {"model_type": "gemma3_text", "sliding_window": 512, "head_dim": 256}
    | {"num_hidden_layers": 26, "rope_local_base_freq": 1e4},
    "MixtralForCausalLM": {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
    "Qwen2MoeForCausalLM": {"model_type": "qwen2_moe", "num_experts": 60, "num_experts_per_tok": 4}
    | {"moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "norm_topk_prob": False},
    "GPT2LMHeadModel": {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 131_072}
    | {"vocab_size": 50_257, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"},
    "DeepseekV2ForCausalLM": {"model_type": "deepseek_v2", "q_lora_rank": None, "kv_lora_rank": 512, "n_group": 1}
    | {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64, "topk_group": 1}
    | {"n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1, "moe_intermediate_size": 1408}
    | {"topk_method": "greedy", "routed_scaling_factor": 1.0, "scoring_func": "softmax", "norm_topk_prob": False},
}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("length", [None, 4096])
@pytest.mark.parametrize("architecture", SHAPES)
def test_the_engine_plans_the_same(tmp_path: Path, architecture: str, device: str, length: int | None) -> None:
    """What the engine does with the memory that is left after its weights is what was promised before the launch."""
    common = {} if "n_embd" in SHAPES[architecture] else LLAMA_8B_CONFIG | {"rms_norm_eps": 1e-5, "hidden_act": "silu"}
    stated = common | SHAPES[architecture] | {"architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    hardware = offer(60 * GIB, "cpu" if device == "cpu" else "gpu")
    model = LLAMA_8B._replace(config=read_config(stated))
    promised = fit(model, replace(hardware, native_bfloat16=device == "cuda"), max_model_len=length)
    assert promised.memory is not None
    plan = plan_kv_cache(
        ModelFolder.open(tmp_path).decoder,
        torch.float32 if device == "cpu" else torch.bfloat16,
        torch.device(device),
        EngineOptions(model="m", max_model_len=length),
        60 * GIB - promised.memory.weights - promised.memory.overhead,
    )
    assert plan.workspace_bytes == promised.memory.activations
    assert plan.max_model_len == promised.max_model_len
    each = promised.memory.kv_cache // plan.bytes_per_block
    assert min(64, plan.num_blocks // each) == promised.max_sequences
