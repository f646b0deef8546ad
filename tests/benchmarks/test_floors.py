"""Floors against counts made in another way."""

from __future__ import annotations

import torch
from engine.floors import HEAD_WEIGHTS, KV_BYTES, LAYER_WEIGHTS, Floor
from engine.workload import Job
from llama_246m import CONFIG
from transformers import LlamaConfig, LlamaForCausalLM

#: One byte and one operation a second: what a floor says is then the count.
BYTES = Floor(weight_bytes=2, peak=1e30, bandwidth=1.0)
OPERATIONS = Floor(weight_bytes=2, peak=1.0, bandwidth=1e30)


def test_weights_are_those_of_the_model_without_embedding_and_norms() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert sum(linear.weight.numel() for linear in linears) == LAYER_WEIGHTS + HEAD_WEIGHTS


def test_a_token_reads_all_weights_and_its_context() -> None:
    weights = 2 * (LAYER_WEIGHTS + HEAD_WEIGHTS)
    assert 1 / BYTES.one_request() == weights
    # 16 layers, keys and values, 4 heads of 64 dimensions, 2 bytes.
    assert KV_BYTES == 16 * 2 * 4 * 64 * 2
    assert 16 / BYTES.decode(16, 200) == weights + 16 * 200 * KV_BYTES


def test_a_prompt_multiplies_every_token_with_the_layers_and_one_with_the_head() -> None:
    # Scores and weighted values: two operations each per dimension, for every pair of query and earlier key.
    pairs = 512 * 512 / 2
    attention = 2 * 2 * 16 * 16 * 64 * pairs
    assert OPERATIONS.prefill(512) == 2 * (512 * LAYER_WEIGHTS + HEAD_WEIGHTS) + attention


def test_a_burst_is_bound_by_its_longest_answer_when_reading_costs_most() -> None:
    jobs = [Job([5] * 32, 40), Job([5] * 64, 160)]
    assert 200 / BYTES.burst(jobs) == 160 * BYTES.weights
