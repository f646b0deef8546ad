"""The engine core with a real model: batches, chunks, preemption and failures, against Transformers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import AddRequest, SamplingParams
from serving_image.engine.scheduler import ScheduledRequest
from serving_image.runtime.runner import Runner
from tests.serving_image.checkpoints import random_prompt, transformers_greedy, write_checkpoint
from tests.serving_image.generation import (
    boot_engine,
    generate,
    greedy_request,
    run_to_end,
    start,
    tokens_by_request,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


def _idle(core: EngineCore) -> bool:
    stats = core.stats()
    return stats.num_free_blocks == stats.num_total_blocks and stats.num_running == stats.num_waiting == 0


def test_32_mixed_requests_equal_transformers_alone(model: Path) -> None:
    """A budget of 64 tokens makes most prompts run in chunks beside others' decoding."""
    core = start(model, max_num_batched_tokens=64, max_num_seqs=32)
    prompts = [random_prompt(1 + 3 * i % 71, seed=i) for i in range(32)]
    lengths = [45 - i if i % 3 else 25 for i in range(32)]
    for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        core.add(greedy_request(str(index), prompt, length))
    outputs, steps = run_to_end(core)
    tokens = tokens_by_request(outputs)
    for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        assert tokens[str(index)] == transformers_greedy(model, prompt, length)
    assert max(step.stats.batch_tokens for step in steps) == 64
    assert max(step.stats.num_running for step in steps) > 24
    assert _idle(core)


def test_preemption_under_a_tiny_cache_changes_no_token(model: Path) -> None:
    ready = boot_engine(model).ready
    core = start(model, kv_cache_memory=7 * ready.kv_cache_bytes // ready.num_blocks, max_model_len=80)
    prompts = [random_prompt(20, seed=i) for i in range(4)]
    for index, prompt in enumerate(prompts):
        core.add(greedy_request(str(index), prompt, 40))
    outputs, steps = run_to_end(core)
    assert steps[-1].stats.num_preemptions > 0
    tokens = tokens_by_request(outputs)
    assert [tokens[str(i)] for i in range(4)] == [transformers_greedy(model, prompt, 40) for prompt in prompts]
    assert _idle(core)


def test_scattered_blocks_give_the_same_tokens(model: Path) -> None:
    """Requests that end in turn leave holes, so later ones get blocks that are not adjacent."""
    ready = boot_engine(model).ready
    core = start(model, kv_cache_memory=8 * ready.kv_cache_bytes // ready.num_blocks, max_model_len=128)
    for index in range(8):
        core.add(greedy_request(f"short{index}", [index], 2 if index % 2 else 15))
    core.step()
    core.step()
    assert core.stats().num_free_blocks == 4
    prompt = random_prompt(40, seed=9)
    core.add(greedy_request("scattered", prompt, 10))
    outputs, _ = run_to_end(core)
    assert tokens_by_request(outputs)["scattered"] == transformers_greedy(model, prompt, 10)


def test_stop_tokens_end_a_request_and_min_tokens_holds_them_back(model: Path) -> None:
    prompt = random_prompt(9, seed=4)
    expected = transformers_greedy(model, prompt, 12)
    stop = expected[5]
    first = expected.index(stop)
    core = start(model)

    def run(**sampling: object) -> tuple[list[int], str | None]:
        params = SamplingParams(temperature=0, max_tokens=12, stop_token_ids=frozenset({stop}), **sampling)  # type: ignore[arg-type]
        core.add(AddRequest(request_id="r", prompt_token_ids=prompt, sampling=params))
        outputs, _ = run_to_end(core)
        assert all(output.finish_reason is None for output in outputs[:-1])
        return tokens_by_request(outputs)["r"], outputs[-1].finish_reason

    assert run() == (expected[: first + 1], "stop")
    held_back, _ = run(min_tokens=first + 2)
    assert held_back[:first] == expected[:first]
    assert stop not in held_back[: first + 2]
    assert run()[0] == expected[: first + 1]


def test_a_request_ends_at_the_context_even_if_max_tokens_is_more(model: Path) -> None:
    core = start(model, max_model_len=32)
    core.add(greedy_request("r", random_prompt(30, seed=1), 100))
    outputs, _ = run_to_end(core)
    assert [output.finish_reason for output in outputs] == [None, "length"]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (greedy_request("bad", [1] * 64, 1), "The prompt has 64 tokens, but prompt and answer together may have 64"),
        (greedy_request("bad", [1, 256], 1), "token id outside 0 … 255"),
        (greedy_request("bad", [-1], 1), "token id outside 0 … 255"),
        (greedy_request("bad", [], 1), "empty"),
        (greedy_request("bad", [1], 0), "max_tokens must be at least 1"),
    ],
    ids=["too long", "above the vocabulary", "negative", "empty", "no tokens"],
)
def test_a_request_that_can_never_run_fails_alone(model: Path, request_: AddRequest, says: str) -> None:
    core = start(model, max_model_len=64)
    core.add(greedy_request("good", [1, 2, 3], 5))
    refused = core.add(request_)
    assert refused is not None
    assert (refused.request_id, refused.finish_reason, refused.token_ids) == ("bad", "error", [])
    assert says in (refused.error or "")
    outputs, _ = run_to_end(core)
    assert tokens_by_request(outputs) == {"good": transformers_greedy(model, [1, 2, 3], 5)}


def test_abort_frees_blocks_at_once_wherever_the_request_is(model: Path) -> None:
    core = start(model, max_num_seqs=2)
    for name in ("running", "survivor", "waiting"):
        core.add(greedy_request(name, [1, 2, 3], 20))
    core.step()
    assert (core.stats().num_running, core.stats().num_waiting) == (2, 1)
    aborted = core.abort(["running", "waiting", "unknown"])
    assert [(output.request_id, output.finish_reason) for output in aborted] == [
        ("running", "abort"),
        ("waiting", "abort"),
    ]
    assert core.stats().num_free_blocks == core.stats().num_total_blocks - 1
    outputs, _ = run_to_end(core)
    assert {output.request_id for output in outputs} == {"survivor"}
    assert _idle(core)


def test_a_second_request_with_a_live_id_does_not_disturb_the_first(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    core = start(model)
    core.add(greedy_request("r", [1, 2, 3], 5))
    assert core.add(greedy_request("r", [4, 5], 9)) is None
    assert "request id r is in use" in caplog.text
    outputs, _ = run_to_end(core)
    assert tokens_by_request(outputs)["r"] == transformers_greedy(model, [1, 2, 3], 5)


def test_a_step_that_raises_fails_its_requests_and_the_engine_goes_on(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core = start(model, max_num_seqs=1)
    run = Runner.run

    def fail_on_victim(self: Runner, scheduled: Sequence[ScheduledRequest]) -> list[int]:
        if any(item.request.request_id == "victim" for item in scheduled):
            raise RuntimeError("out of memory")
        return run(self, scheduled)

    monkeypatch.setattr(Runner, "run", fail_on_victim)
    core.add(greedy_request("victim", [1, 2], 5))
    core.add(greedy_request("next", [1, 2, 3], 5))
    with caplog.at_level(logging.ERROR):
        outputs, _ = run_to_end(core)
    assert [output.finish_reason for output in outputs if output.request_id == "victim"] == ["error"]
    assert "out of memory" in caplog.text
    assert tokens_by_request(outputs)["next"] == transformers_greedy(model, [1, 2, 3], 5)
    assert _idle(core)


def test_a_lost_block_is_reported_when_idle(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    core = start(model)
    core._pool._state[7] = 0
    core._pool._num_free -= 1
    for _ in range(2):
        generate(core, [1, 2], 2)
    assert caplog.text.count("1 of 256 key/value blocks are held by no request") == 1


def test_a_seed_repeats_a_request_whatever_runs_beside_it(model: Path) -> None:
    def seeded(core: EngineCore, name: str, seed: int | None) -> None:
        params = SamplingParams(temperature=1.3, top_p=0.95, top_k=40, seed=seed, max_tokens=12)
        core.add(AddRequest(request_id=name, prompt_token_ids=[5, 6, 7], sampling=params))

    core = start(model)
    seeded(core, "alone", 42)
    alone = tokens_by_request(run_to_end(core)[0])["alone"]
    for index in range(6):
        seeded(core, f"other{index}", None)
    seeded(core, "crowded", 42)
    seeded(core, "different", 43)
    crowd = tokens_by_request(run_to_end(core)[0])
    assert crowd["crowded"] == alone
    assert crowd["different"] != alone
    assert len({tuple(crowd[f"other{index}"]) for index in range(6)}) == 6


def test_the_engine_seed_repeats_requests_without_a_seed(model: Path) -> None:
    def sampled(engine_seed: int) -> list[int]:
        core = start(model, seed=engine_seed)
        params = SamplingParams(temperature=1.5, max_tokens=12)
        core.add(AddRequest(request_id="r", prompt_token_ids=[5, 6, 7], sampling=params))
        return tokens_by_request(run_to_end(core)[0])["r"]

    assert sampled(1) == sampled(1) != sampled(2)
