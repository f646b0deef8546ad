"""The model's floors against other counts, and its measurements on a tiny model without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu.model import engine, start
from benchmarks.gpu.model.driver import Jobs, Run, Step
from benchmarks.gpu.model.engine import Load
from benchmarks.gpu.model.shape import LlamaShape
from benchmarks.gpu.results import Ceilings, Figure

TINY = LlamaShape(vocab=256, hidden=64, intermediate=96, layers=2, heads=4, kv_heads=2, head_dim=16)
#: One byte and one operation a second: what a floor says is then the count.
BYTES, OPERATIONS = Ceilings(copy=1.0, matmul=1e30), Ceilings(copy=1e30, matmul=1.0)


def linear_weights(shape: LlamaShape) -> int:
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape.config()))
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))


def test_a_token_reads_all_weights_but_the_embedding_and_its_context() -> None:
    shape = LlamaShape()
    assert shape.weight_bytes == 2 * linear_weights(shape)
    # 32 layers, keys and values, 8 heads of 128 dimensions, 2 bytes.
    assert shape.token_bytes == 32 * 2 * 8 * 128 * 2
    assert shape.decode_bytes(3, 1000) == shape.weight_bytes + 3000 * shape.token_bytes


def test_operations_are_two_for_each_weight_and_four_for_each_pair_in_a_head() -> None:
    weights, pairs = linear_weights(TINY), 4 * 2 * 4 * 16
    assert TINY.decode_operations(5, 10) == 5 * (2 * weights + pairs * 10)
    vocabulary = 256 * 64
    assert TINY.prompt_operations(3) == 2 * (3 * (weights - vocabulary) + vocabulary) + pairs * (1 + 2 + 3)


def test_a_steps_floor_is_the_sum_of_its_kernels() -> None:
    activations = sum(times * 2 * (columns + depth) for times, columns, depth in TINY.products)
    # In each layer: two norms that add (4 passes over 64), the projection rotated in place (128 in and out), queries
    # and outputs of attention (64 each), the activation (2 · 96 in, 96 out). Then the embedding, in and out, and the
    # scores, read once in float32.
    streamed = 2 * (2 * (2 * 4 * 64 + 2 * 128 + 2 * 64 + 3 * 96) + 2 * 64) + 4 * 256
    expected = TINY.decode_bytes(1, 100) + activations + streamed
    assert TINY.step_floor(1, 100, BYTES) == pytest.approx(expected)
    assert TINY.step_floor(7, 100, OPERATIONS) == pytest.approx(7 * 2 * linear_weights(TINY))


def test_one_product_bound_by_bytes_and_another_by_operations_do_not_hide_each_other() -> None:
    ceilings = Ceilings(copy=1e9, matmul=25e9)
    both = TINY.step_floor(64, 0, ceilings)
    assert both > TINY.step_floor(64, 0, ceilings._replace(matmul=1e30))
    assert both > TINY.step_floor(64, 0, ceilings._replace(copy=1e30))


def test_decoding_counts_from_step_to_step_and_idle_is_what_the_device_leaves() -> None:
    decodes = [Step(2.0 + 0.1 * index, 4, 4, 0.08) for index in range(40)]
    run = Run(0.0, [Step(1.0, 400, 0, 0.5), Step(1.5, 36, 4, 0.4), *decodes, Step(9.0, 3, 3, 0.01)])
    assert run.first_token == 1.5
    assert run.seconds == 9.0
    assert run.decode_seconds(4) == pytest.approx(0.1)
    assert run.idle_share(4) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="only 0 steps decoded 5 requests"):
        run.decode_seconds(5)


def test_the_engine_is_measured_in_all_three_cases() -> None:
    figures: list[Figure] = []
    load = Load(one=Jobs(1, 8, 40), idle=Jobs(4, 8, 40), many=Jobs(6, 10, 40), batched_tokens=64)
    engine.measure(figures.append, BYTES, TINY, load)
    one, idle, many = figures
    assert (one.row, idle.row, many.row) == ("one_request", "idle", "many_requests")
    assert one.bytes == TINY.decode_bytes(1, 28)
    assert one.values["tokens_per_s"] == pytest.approx(1 / one.seconds)
    assert idle.values["idle_share"] < 1
    assert many.values["decode_step_floor_s"] == TINY.step_floor(6, 30, BYTES)
    assert many.values["output_tokens_per_s"] == pytest.approx(240 / many.seconds)


def test_the_checkpoint_has_every_parameter_of_transformers(tmp_path: Path) -> None:
    folder = TINY.write_config(tmp_path / "model")
    size = start.write_weights(folder, TINY)
    files = folder.glob("*.safetensors")
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    model = LlamaForCausalLM(LlamaConfig(**TINY.config()))
    assert size >= 2 * model.num_parameters()
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: parameter.shape for name, parameter in model.named_parameters()
    }
    for name, tensor in found.items():
        if "norm" in name:
            assert torch.all(tensor == 1)
        else:
            assert tensor.float().std() == pytest.approx(0.02, rel=0.1)
