"""A model with full and windowed layers on the GPU's runtime, against Transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs
from transformers import Gemma2Config

from tests.serving_image.generation import greedy_request, run_to_end, tokens_by_request
from tests.serving_image.models.families.case import Reference, transformers_case
from tests.serving_image.runtime.gpu.engine import BLOCK, assert_idle, runner_of, start_on_gpu

WINDOW, BUDGET = 5, 16
CASE = transformers_case(
    "two groups",
    Gemma2Config,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    query_pre_attn_scalar=16,
    max_position_embeddings=96,
    sliding_window=WINDOW,
)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    folder = tmp_path_factory.mktemp("windowed")
    return folder, CASE.write(folder)


def greedy(reference: Reference, prompt: list[int], max_tokens: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(max_tokens):
        tokens.append(int(reference(tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def test_chunks_shared_prefixes_and_preemption_change_no_token(windowed: tuple[Path, Reference]) -> None:
    """The seven blocks do for one request; a more urgent one takes them from the one that runs."""
    folder, reference = windowed
    core = start_on_gpu(folder, num_blocks=7, max_model_len=48, max_num_batched_tokens=BUDGET)
    assert [window for _, window, _ in core._pool.demand.groups] == [None, WINDOW]
    beginning = [7 * index % 199 for index in range(28)]
    core.add(greedy_request("first", beginning, 1))
    run_to_end(core)
    core.add(greedy_request("a", [*beginning, 3], 5))
    held, outputs = 0, []
    while core.has_work:
        outputs += core.step().outputs
        tables = [request.blocks.groups[1] for request in core._live.values() if request.blocks.groups]
        held = max([held, *(len(table.blocks) for table in tables)])
        if len(outputs) == 2:
            core.add(structs.replace(greedy_request("b", [5, *beginning], 3), priority=-1))
    assert tokens_by_request(outputs) == {
        "a": greedy(reference, [*beginning, 3], 5),
        "b": greedy(reference, [5, *beginning], 3),
    }
    assert 0 < held <= -(-(WINDOW - 1 + BUDGET) // BLOCK) + 1
    assert core.stats().prefix_cache_hits >= BLOCK
    assert core.stats().num_preemptions > 0
    assert_idle(core)


# What made-up requests attend to is whatever lies in memory.
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_made_up_steps_leave_nothing_behind(windowed: tuple[Path, Reference]) -> None:
    folder, reference = windowed
    core = start_on_gpu(folder, max_num_seqs=1, max_model_len=18, max_num_batched_tokens=4)
    runner_of(core).compile_kernels()
    assert_idle(core)
    core.add(greedy_request("r", [4, 5, 6], 2))
    assert tokens_by_request(run_to_end(core)[0])["r"] == greedy(reference, [4, 5, 6], 2)
