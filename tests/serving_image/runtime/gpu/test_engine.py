"""The engine core over the GPU's runtime yields what Transformers does, or the engine on a CPU, whatever happens."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import AddRequest, RequestOutput, SamplingParams
from serving_image.engine.step import ScheduledRequest
from serving_image.errors import StartupError
from serving_image.models.decoder import Decoder, DecoderInput
from serving_image.runtime.failures import NOTHING_TO_CHOOSE, RAISED
from serving_image.runtime.gpu.gpu_runner import GPURunner
from serving_image.runtime.gpu.pending_step import GPUStep
from tests.serving_image.checkpoints import random_prompt, transformers_greedy, write_checkpoint
from tests.serving_image.generation import boot_engine, greedy_request, run_to_end, start, tokens_by_request

BLOCK = 16


def start_on_gpu(model: Path, *, num_blocks: int | None = None, **options: Any) -> EngineCore:
    settings: dict[str, Any] = {"device": "auto", "block_size": BLOCK, "max_num_seqs": 4, "max_model_len": 96}
    settings |= options
    if num_blocks is not None:
        ready = boot_engine(model, **settings).ready
        settings["kv_cache_memory"] = num_blocks * ready.kv_cache_bytes // ready.num_blocks
    return start(model, **settings)


def runner_of(core: EngineCore) -> GPURunner:
    assert isinstance(core._runner, GPURunner)
    return core._runner


def assert_idle(core: EngineCore) -> None:
    """Nothing is live, every block is free, and so is every row."""
    stats = core.stats()
    assert not core.has_work
    assert stats.num_free_blocks == stats.num_total_blocks
    rows = runner_of(core)._rows
    assert rows.num_free == len(rows.tables.prompt_lengths)


def ask(name: str, prompt: list[int], max_tokens: int, **sampling: Any) -> AddRequest:
    params = SamplingParams(**({"temperature": 0, "max_tokens": max_tokens} | sampling))
    return AddRequest(request_id=name, prompt_token_ids=prompt, sampling=params)


def test_requests_that_join_and_leave_get_what_transformers_yields_alone(model: Path) -> None:
    """In chunks of prompts beside decodes; batches of single tokens are filled up, and replayed when they recur."""
    core = start_on_gpu(model, max_num_batched_tokens=24)
    lengths = {"a": (3, 9), "b": (30, 3), "c": (17, 6), "d": (16, 1), "late": (20, 4)}
    prompts = {name: random_prompt(length, seed=index) for index, (name, (length, _)) in enumerate(lengths.items())}
    for name in "abcd":
        core.add(greedy_request(name, prompts[name], lengths[name][1]))
    outputs = [output for _ in range(3) for output in core.step().outputs]
    core.add(greedy_request("late", prompts["late"], lengths["late"][1]))
    outputs += run_to_end(core)[0]
    tokens = tokens_by_request(outputs)
    for name, (_, max_tokens) in lengths.items():
        assert tokens[name] == transformers_greedy(model, prompts[name], max_tokens)
    assert runner_of(core)._graphs.num_captured > 0
    assert_idle(core)


def test_each_step_is_launched_before_the_one_before_it_is_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    launch, result = GPURunner.launch, GPUStep.result
    monkeypatch.setattr(GPURunner, "launch", lambda self, items: log.append("launch") or launch(self, items))
    monkeypatch.setattr(GPUStep, "result", lambda self: log.append("read") or result(self))
    core = start_on_gpu(model)
    prompt = random_prompt(5, seed=1)
    core.add(greedy_request("r", prompt, 4))
    outputs, _ = run_to_end(core)
    assert log == ["launch", "launch", "read", "launch", "read", "launch", "read", "read"]
    assert tokens_by_request(outputs)["r"] == transformers_greedy(model, prompt, 4)


def test_preemption_changes_no_token(model: Path) -> None:
    """Requests lose their blocks, and get others when they run again."""
    core = start_on_gpu(model, num_blocks=5, max_model_len=64, max_num_seqs=3)
    prompts = [random_prompt(14, seed=i) for i in range(3)]
    for index, prompt in enumerate(prompts):
        core.add(greedy_request(str(index), prompt, 6))
    outputs, steps = run_to_end(core)
    assert steps[-1].stats.num_preemptions > 0
    tokens = tokens_by_request(outputs)
    assert [tokens[str(i)] for i in range(3)] == [transformers_greedy(model, prompt, 6) for prompt in prompts]
    assert_idle(core)


def test_shared_prefixes_change_no_token(model: Path) -> None:
    core = start_on_gpu(model)
    beginning = random_prompt(35, seed=1)
    for tail in ([1, 2, 3], [4]):
        for name in ("x", "y"):
            core.add(greedy_request(name, [*beginning, *tail], 3))
        tokens = tokens_by_request(run_to_end(core)[0])
        assert tokens["x"] == tokens["y"] == transformers_greedy(model, [*beginning, *tail], 3)
    assert core.stats().prefix_cache_hits == 4 * 2 * BLOCK - 2 * 2 * BLOCK
    assert_idle(core)


PROMPT = random_prompt(9, seed=4)
CONSTRAINED: dict[str, dict[str, Any]] = {
    "plain": {"logprobs": 3, "prompt_logprobs": 2},
    "biased": {"logit_bias": {7: 30.0, 8: 29.0}, "bad_words": [[7, 7]], "logprobs": 0},
    "penalised": {"repetition_penalty": 1.8, "frequency_penalty": 0.6, "presence_penalty": -0.3},
    "allowed": {"allowed_token_ids": list(range(0, 256, 5)), "frequency_penalty": 2.0},
    "held back": {"min_tokens": 3},
    "impossible": {"allowed_token_ids": [3], "bad_words": [[3]]},
}


def run_constrained(core: EngineCore, stop: int) -> dict[str, list[RequestOutput]]:
    for name, params in CONSTRAINED.items():
        core.add(
            ask(name, PROMPT, 5, stop_token_ids=frozenset({stop}) if name == "held back" else frozenset(), **params)
        )
    found: dict[str, list[RequestOutput]] = {}
    for output in run_to_end(core)[0]:
        found.setdefault(output.request_id, []).append(output)
    return found


@pytest.fixture(scope="module")
def on_cpu(model: Path) -> dict[str, list[RequestOutput]]:
    """Made before any device stands in."""
    return run_constrained(start(model, max_num_batched_tokens=24), transformers_greedy(model, PROMPT, 2)[1])


def test_constraints_and_log_probabilities_equal_those_of_the_engine_on_a_cpu(
    on_cpu: dict[str, list[RequestOutput]], model: Path
) -> None:
    core = start_on_gpu(model, max_num_seqs=6, max_num_batched_tokens=24)
    found = run_constrained(core, transformers_greedy(model, PROMPT, 2)[1])
    assert found.keys() == on_cpu.keys()
    for name, outputs in found.items():
        for ours, theirs in zip(outputs, on_cpu[name], strict=True):
            assert (ours.token_ids, ours.finish_reason, ours.error) == (
                theirs.token_ids,
                theirs.finish_reason,
                theirs.error,
            ), name
            for part in ("logprobs", "prompt_logprobs"):
                assert_same_logprobs(getattr(ours, part), getattr(theirs, part))
    assert found["impossible"][0].error == NOTHING_TO_CHOOSE
    assert len(found["plain"][0].prompt_logprobs or []) == len(PROMPT) - 1
    assert_idle(core)


def assert_same_logprobs(ours: list[Any] | None, theirs: list[Any] | None) -> None:
    assert (ours is None) == (theirs is None)
    for one, other in zip(ours or [], theirs or [], strict=True):
        assert (one.token_id, one.rank, one.top_ids) == (other.token_id, other.rank, other.top_ids)
        assert [one.logprob, *one.top_logprobs] == pytest.approx([other.logprob, *other.top_logprobs], abs=1e-4)


def test_prompt_log_probabilities_of_a_chunked_prompt(model: Path) -> None:
    core = start_on_gpu(model, max_num_batched_tokens=16)
    prompt = random_prompt(37, seed=3)
    core.add(ask("r", prompt, 1, prompt_logprobs=1))
    outputs, _ = run_to_end(core)
    found = outputs[-1].prompt_logprobs or []
    with torch.no_grad():
        scores = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)(torch.tensor([prompt])).logits[0, :-1]
    truth = scores.log_softmax(-1)
    assert [entry.token_id for entry in found] == prompt[1:]
    assert [entry.logprob for entry in found] == pytest.approx(truth[range(36), prompt[1:]].tolist(), abs=1e-4)
    assert [entry.top_ids for entry in found] == truth.argmax(-1, keepdim=True).tolist()


def test_a_seed_repeats_a_request_whatever_runs_beside_it(model: Path) -> None:
    core = start_on_gpu(model)
    params = {"temperature": 1.3, "top_p": 0.95, "top_k": 40}
    core.add(ask("alone", [5, 6, 7], 4, seed=42, **params))
    alone = tokens_by_request(run_to_end(core)[0])["alone"]
    core.add(ask("other", [5, 6, 7], 4, seed=43, **params))
    core.add(ask("greedy", [9, 9], 4))
    core.add(ask("crowded", [5, 6, 7], 4, seed=42, **params))
    crowd = tokens_by_request(run_to_end(core)[0])
    assert crowd["crowded"] == alone
    assert crowd["other"] != alone


def test_a_request_whose_scores_overflow_fails_alone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token 255 embeds as NaN, which also stays in the cache until others take the block."""
    core = start_on_gpu(model, num_blocks=6)
    runner_of(core)._decoder._embedding[255] = float("nan")
    core.add(ask("victim", [1, 255, 3], 4))
    core.add(greedy_request("good", [1, 2, 3], 4))
    outputs, _ = run_to_end(core)
    assert [(o.token_ids, o.finish_reason, o.error) for o in outputs if o.request_id == "victim"] == [
        ([], "error", NOTHING_TO_CHOOSE)
    ]
    assert tokens_by_request(outputs)["good"] == transformers_greedy(model, [1, 2, 3], 4)
    prompt = random_prompt(80, seed=3)
    core.add(greedy_request("next", prompt, 2))
    assert tokens_by_request(run_to_end(core)[0])["next"] == transformers_greedy(model, prompt, 2)
    assert_idle(core)


def test_a_request_that_makes_the_host_raise_fails_alone(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core = start_on_gpu(model)
    forward = Decoder.forward

    def fail_on_255(self: Decoder, batch: DecoderInput, *more: Any) -> torch.Tensor:
        if 255 in batch.token_ids:
            raise RuntimeError("out of memory")
        return forward(self, batch, *more)

    monkeypatch.setattr(Decoder, "forward", fail_on_255)
    core.add(greedy_request("good", [1, 2, 3], 3))
    core.add(greedy_request("victim", [1, 255], 3))
    with caplog.at_level(logging.ERROR):
        outputs, _ = run_to_end(core)
    assert [output.error for output in outputs if output.request_id == "victim"] == [RAISED]
    assert "out of memory" in caplog.text
    assert tokens_by_request(outputs)["good"] == transformers_greedy(model, [1, 2, 3], 3)
    assert_idle(core)


def test_a_device_that_is_lost_ends_the_engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = start_on_gpu(model)

    def lost(*_: Any) -> torch.Tensor:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    monkeypatch.setattr(Decoder, "forward", lost)
    core.add(greedy_request("r", [1, 2, 3], 3))
    with pytest.raises(torch.AcceleratorError):
        core.step()


def test_kernels_are_compiled_by_made_up_requests_that_leave_nothing_behind(model: Path) -> None:
    core = start_on_gpu(model)
    runner_of(core).compile_kernels()
    assert_idle(core)
    prompt = random_prompt(4, seed=8)
    core.add(greedy_request("r", prompt, 2))
    assert tokens_by_request(run_to_end(core)[0])["r"] == transformers_greedy(model, prompt, 2)


def test_a_batch_is_launched_with_its_single_tokens_first(model: Path) -> None:
    """The scheduler may put a prompt of one token, or the last one of a prompt, behind longer chunks."""
    core = start_on_gpu(model)
    launched: list[list[ScheduledRequest]] = []
    launch = runner_of(core)._launch
    runner_of(core)._launch = lambda items, result: launched.append(items) or launch(items, result)  # type: ignore
    prompts = {"long": random_prompt(12, seed=1), "one": [7]}
    for name, prompt in prompts.items():
        core.add(greedy_request(name, prompt, 2))
    tokens = tokens_by_request(run_to_end(core)[0])
    assert [item.num_tokens for item in launched[0]] == [1, 12]
    assert tokens == {name: transformers_greedy(model, prompt, 2) for name, prompt in prompts.items()}


def test_batch_invariance_is_refused(model: Path) -> None:
    with pytest.raises(StartupError, match="--batch-invariant"):
        start_on_gpu(model, batch_invariant=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_launch_does_not_wait_for_the_device(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises where an operation would wait: for chunks, decodes, constraints, penalties and reports alike."""
    core = start_on_gpu(model, max_num_seqs=6, max_num_batched_tokens=24)
    launch = runner_of(core).launch

    def watched(items: list[ScheduledRequest]) -> GPUStep:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return launch(items)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(runner_of(core), "launch", watched)
    found = run_constrained(core, stop=0)
    assert {name for name, outputs in found.items() if outputs[-1].finish_reason == "error"} == {"impossible"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_decoding_from_captured_graphs_equals_decoding_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wider model in bfloat16, batches of all sizes up to 5, contexts on both sides of the split threshold."""
    folder = write_checkpoint(
        tmp_path, hidden_size=256, intermediate_size=512, head_dim=64, max_position_embeddings=2048
    )
    runs = {}
    for captured in (True, False):
        core = start_on_gpu(folder, dtype="bfloat16", max_num_seqs=5, max_model_len=2048, enable_prefix_caching=False)
        if not captured:
            monkeypatch.setattr(runner_of(core)._graphs, "_usable", False)
        for index, length in enumerate((3, 1500, 70, 300, 1)):
            core.add(greedy_request(str(index), random_prompt(length, seed=index), 12 * (index + 1)))
        runs[captured] = tokens_by_request(run_to_end(core)[0])
        assert (runner_of(core)._graphs.num_captured > 3) == captured
    assert runs[True] == runs[False]


def test_an_fp8_cache_gives_much_the_same(model: Path) -> None:
    """Log-probabilities of a prompt stay near: e4m3 keeps three bits of a key or value."""
    prompt = random_prompt(20, seed=6)
    found = {}
    for kind in ("auto", "fp8"):
        core = start_on_gpu(model, kv_cache_dtype=kind)
        core.add(ask("r", prompt, 1, prompt_logprobs=0))
        found[kind] = [entry.logprob for entry in run_to_end(core)[0][-1].prompt_logprobs or []]
    exact, rounded = torch.tensor(found["auto"]), torch.tensor(found["fp8"])
    assert 0 < (exact - rounded).abs().max() < 1.5
    assert (exact - rounded).abs().mean() < 0.3
