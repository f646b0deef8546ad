"""What is compiled at boot is what requests need: later, a compiler in the middle of a step would hold everybody up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import DeepseekV2Config

from tests.serving_image.checkpoints import write_checkpoint
from tests.serving_image.models.families.case import transformers_case


def _dense(folder: Path) -> None:
    write_checkpoint(folder, max_position_embeddings=1024, vocab_size=40_000)


def _mixture_with_latent_attention(folder: Path) -> None:
    transformers_case(
        "deepseek",
        DeepseekV2Config,
        vocab_size=40_000,
        hidden_size=64,
        intermediate_size=80,
        moe_intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        q_lora_rank=None,
        kv_lora_rank=32,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=16,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        topk_method="greedy",
        first_k_dense_replace=1,
        max_position_embeddings=1024,
    ).write(folder)


@pytest.mark.parametrize("write", [_dense, _mixture_with_latent_attention])
def test_nothing_is_compiled_while_requests_wait(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    argv = [sys.executable, "-m", "tests.serving_image.runtime.gpu.compiled_workload", str(tmp_path)]
    ended = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["launched_ahead"] == 0
    assert len(found["ahead"]) > 20
    assert found["later"] == []
