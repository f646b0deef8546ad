"""The engine core with a real model, against Transformers: batches, chunks, preemption, shared prefixes, failures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import AddRequest, SamplingParams
from serving_image.models.decoder import Decoder
from serving_image.models.interface import ModelInput
from tests.serving_image.checkpoints import random_prompt, transformers_greedy, write_checkpoint
from tests.serving_image.generation import boot_engine, greedy_request, run_to_end, start, tokens_by_request


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


def _idle(core: EngineCore) -> bool:
    stats = core.stats()
    return stats.num_free_blocks == stats.num_total_blocks and stats.num_running == stats.num_waiting == 0


def _start_with_blocks(model: Path, num_blocks: int, **options: Any) -> EngineCore:
    ready = boot_engine(model).ready
    return start(model, kv_cache_memory=num_blocks * ready.kv_cache_bytes // ready.num_blocks, **options)


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
    core = _start_with_blocks(model, 5, max_model_len=80)
    prompts = [random_prompt(20, seed=i) for i in range(4)]
    for index, prompt in enumerate(prompts):
        core.add(greedy_request(str(index), prompt, 40))
    outputs, steps = run_to_end(core)
    assert steps[-1].stats.num_preemptions > 0
    tokens = tokens_by_request(outputs)
    assert [tokens[str(i)] for i in range(4)] == [transformers_greedy(model, prompt, 40) for prompt in prompts]
    assert _idle(core)


def test_shared_prefixes_change_no_token(model: Path) -> None:
    """Conversations that share a beginning go on, while a small cache evicts some of what they leave."""
    core = _start_with_blocks(model, 7, max_model_len=112)
    beginning = random_prompt(37, seed=1)
    prompts = {name: beginning + random_prompt(3 + index, seed=index) for index, name in enumerate("abcd")}
    for _ in range(3):
        for name, prompt in prompts.items():
            core.add(greedy_request(name, prompt, 8))
        tokens = tokens_by_request(run_to_end(core)[0])
        for name, prompt in prompts.items():
            assert tokens[name] == transformers_greedy(model, prompt, 8)
            prompts[name] = prompt + tokens[name] + [7, 8]
    assert core.stats().prefix_cache_hits > 4 * 32
    assert _idle(core)


def test_scattered_blocks_give_the_same_tokens(model: Path) -> None:
    """Requests that end in turn leave holes, so later ones get blocks that are not adjacent."""
    core = _start_with_blocks(model, 9, max_model_len=128)
    for index in range(8):
        core.add(greedy_request(f"short{index}", [index], 2 if index % 2 else 15))
    while core.stats().num_free_blocks != 5:
        core.step()
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

    def run(**sampling: Any) -> tuple[list[int], str | None]:
        params = SamplingParams(temperature=0, max_tokens=12, stop_token_ids=frozenset({stop}), **sampling)
        core.add(AddRequest(request_id="r", prompt_token_ids=prompt, sampling=params))
        outputs, _ = run_to_end(core)
        assert all(output.finish_reason is None for output in outputs[:-1])
        return tokens_by_request(outputs)["r"], outputs[-1].finish_reason

    assert run() == (expected[: first + 1], "stop")
    held_back, _ = run(min_tokens=first + 2)
    assert held_back[:first] == expected[:first]
    assert stop not in held_back[: first + 2]
    assert run()[0] == expected[: first + 1]


def test_logprobs_of_prompt_and_answer_equal_those_of_transformers(model: Path) -> None:
    core = start(model, max_num_batched_tokens=16)
    prompt = random_prompt(40, seed=3)
    core.add(greedy_request("before", prompt, 2))
    run_to_end(core)
    params = SamplingParams(temperature=0, max_tokens=5, logprobs=3, prompt_logprobs=2)
    core.add(AddRequest(request_id="r", prompt_token_ids=prompt, sampling=params))
    outputs, _ = run_to_end(core)
    tokens = prompt + [token for output in outputs for token in output.token_ids]
    found = [*(outputs[0].prompt_logprobs or []), *(entry for output in outputs for entry in output.logprobs or [])]
    assert [entry.token_id for entry in found] == tokens[1:]
    with torch.no_grad():
        scores = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)(torch.tensor([tokens])).logits[0, :-1]
    truth = scores.log_softmax(-1)
    ours = torch.tensor([entry.logprob for entry in found])
    torch.testing.assert_close(ours, truth[range(len(found)), tokens[1:]], atol=1e-4, rtol=1e-4)
    for entry, row in zip(found, truth, strict=True):
        assert entry.rank == 1 + int((row > row[entry.token_id]).sum())
        assert entry.top_ids == row.topk(len(entry.top_ids)).indices.tolist()


def test_a_request_that_makes_the_model_raise_fails_alone(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core = start(model)
    forward = Decoder.forward

    def fail_on_255(self: Decoder, batch: ModelInput, *more: Any) -> torch.Tensor:
        if 255 in batch.token_ids:
            raise RuntimeError("out of memory")
        return forward(self, batch, *more)

    monkeypatch.setattr(Decoder, "forward", fail_on_255)
    core.add(greedy_request("good", [1, 2, 3], 5))
    core.add(greedy_request("victim", [1, 255], 5))
    with caplog.at_level(logging.ERROR):
        outputs, _ = run_to_end(core)
    assert [output.finish_reason for output in outputs if output.request_id == "victim"] == ["error"]
    assert "out of memory" in caplog.text
    assert tokens_by_request(outputs)["good"] == transformers_greedy(model, [1, 2, 3], 5)
    assert _idle(core)


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
