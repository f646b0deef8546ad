"""Sizing against numbers worked out by hand, and against the engine's own plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from control_plane.hub.facts import ModelFacts
from control_plane.providers.base import HardwareOffer
from control_plane.sizing.memory import Memory, fit, kv_bytes_per_token
from serving_image.models.config import DecoderConfig
from serving_image.models.rotary import RotaryConfig
from serving_image.options import EngineOptions
from serving_image.runtime.memory import plan_kv_cache

GIB = 1 << 30

LLAMA_8B = ModelFacts(
    id="org/llama-8b",
    sha="a" * 40,
    architectures=("LlamaForCausalLM",),
    family="llama",
    parameters=8_030_261_248,
    weight_bytes=16_060_522_496,
    context=131_072,
    hidden_size=4096,
    intermediate_size=14_336,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=128_256,
    dtype="bfloat16",
    quantization=None,
    license="llama3.1",
    gated=True,
    rope_type="llama3",
    activation="silu",
    has_chat_template=True,
    custom_code=False,
    files=(),
)


def offer(memory_bytes: int, accelerator: str = "NVIDIA H200", count: int = 1) -> HardwareOffer:
    return HardwareOffer("x", "test", "X", accelerator, count, memory_bytes, 1.0, True)


def test_llama_8b_by_hand() -> None:
    """On an 80 GiB GPU in bfloat16.

    Keys and values: 2 × 32 layers × 8 heads × 128 × 2 bytes = 131,072 bytes a token; 32 tokens a block = 4 MiB.
    A step: 2048 tokens × (4·4096 + 2·(32 + 2·8)·128 + 4·14336) × 2 bytes, and 64 × 128256 × 24 bytes of logits.
    Besides, for 64 sequences: as much as a token of a step, 128 parts of (128 + 2) × 4 bytes for each of 32 heads, and
    4 bytes for each of 8192 tokens and for each of 2 × 256 blocks.
    """
    assert kv_bytes_per_token(LLAMA_8B, 2) == 131_072
    activations = 2048 * (16_384 + 12_288 + 57_344) * 2 + 64 * 128_256 * 24
    assert activations == 549_322_752
    activations += 64 * (86_016 * 2 + 128 * 130 * 4 * 32 + 4 * 8192 + 4 * 512)
    assert activations == 698_875_904

    found = fit(LLAMA_8B, offer(80 * GIB), max_model_len=8192, concurrency=4)

    assert found.fits
    assert found.memory == Memory(
        weights=16_060_522_496, kv_cache=4 * 8192 * 131_072, activations=activations, overhead=700 << 20
    )
    # (80 GiB − 16,060,522,496 − 734,003,200) × 0.9 − 698,875,904 = 61,495,462,297 bytes: 14,661 blocks, 256 a sequence.
    assert found.max_sequences == 14_661 // 256 == 57
    assert (found.max_model_len, found.why_not) == (8192, None)


def test_a_small_gpu_gets_a_shorter_context_or_says_why_not() -> None:
    """Of 24 GiB are left (25,769,803,776 − 16,060,522,496 − 734,003,200) × 0.9 − 732,299,264 bytes: 1751 blocks."""
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
    found = fit(replace(LLAMA_8B, dtype=stored), cpu, max_model_len=4096)
    assert found.memory is not None
    assert found.memory.weights == growth * LLAMA_8B.weight_bytes
    assert found.memory.kv_cache == 4096 * growth * 131_072


def test_one_engine_uses_one_device() -> None:
    assert not fit(LLAMA_8B, offer(24 * GIB, count=2)).fits


def test_what_cannot_be_estimated_is_said() -> None:
    for facts, reason in (
        (replace(LLAMA_8B, weight_bytes=0), "safetensors"),
        (replace(LLAMA_8B, layers=None), "config.json"),
        (replace(LLAMA_8B, vocabulary=None), "config.json"),
    ):
        found = fit(facts, offer(80 * GIB))
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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("length", [None, 4096])
def test_the_engine_plans_the_same(device: str, length: int | None) -> None:
    """What the engine does with the memory that is left after its weights is what was promised before the launch."""
    config = DecoderConfig(
        architecture="LlamaForCausalLM",
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        norm_epsilon=1e-5,
        rotary=RotaryConfig(head_dim=128, theta=5e5, max_position=131_072),
        attention_bias=False,
        mlp_bias=False,
        tie_word_embeddings=False,
        max_position=131_072,
    )
    hardware = offer(60 * GIB, "cpu" if device == "cpu" else "gpu")
    promised = fit(LLAMA_8B, replace(hardware, native_bfloat16=device == "cuda"), max_model_len=length)
    assert promised.memory is not None
    plan = plan_kv_cache(
        config,
        torch.float32 if device == "cpu" else torch.bfloat16,
        torch.device(device),
        EngineOptions(model="m", max_model_len=length),
        60 * GIB - promised.memory.weights - promised.memory.overhead,
    )
    assert plan.workspace_bytes == promised.memory.activations
    assert plan.max_model_len == promised.max_model_len
    assert plan.num_blocks // -(-plan.max_model_len // plan.block_size) == promised.max_sequences
