"""The engine core over the GPU's runtime yields what Transformers does, whatever happens to its requests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serving_image.engine.step import ScheduledRequest
from serving_image.errors import StartupError
from serving_image.runtime.gpu.gpu_runner import GPURunner
from serving_image.runtime.gpu.pending_step import GPUStep
from tests.serving_image.checkpoints import ROPE_VARIANTS, random_prompt, transformers_greedy, write_checkpoint
from tests.serving_image.generation import greedy_request, run_to_end, tokens_by_request
from tests.serving_image.runtime.gpu.engine import BLOCK, ask, assert_idle, runner_of, start_on_gpu


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


def test_an_aborted_requests_row_serves_the_next_one_at_once(model: Path) -> None:
    """A step that was launched before still runs the aborted one."""
    core = start_on_gpu(model, enable_prefix_caching=False)
    penalised = {"frequency_penalty": 0.5, "logit_bias": {3: 5.0}}
    core.add(ask("gone", random_prompt(30, seed=1), 9, **penalised))
    for _ in range(3):
        core.step()
    core.abort(["gone"])
    prompt = random_prompt(7, seed=2)
    core.add(greedy_request("next", prompt, 4))
    assert tokens_by_request(run_to_end(core)[0]) == {"next": transformers_greedy(model, prompt, 4)}
    assert_idle(core)


def test_rotations_that_follow_the_sequences_length(tmp_path: Path) -> None:
    """``dynamic`` scaling looks at how long the prompt was, and at each generated token's position."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    rope = {"rope_parameters": ROPE_VARIANTS["dynamic"], "max_position_embeddings": 24}
    folder = write_checkpoint(tmp_path, num_hidden_layers=1, **sizes, **rope)
    core = start_on_gpu(folder)
    prompts = {"longer": random_prompt(30, seed=1), "shorter": random_prompt(22, seed=2)}
    for name, prompt in prompts.items():
        core.add(greedy_request(name, prompt, 4))
    tokens = tokens_by_request(run_to_end(core)[0])
    assert tokens == {name: transformers_greedy(folder, prompt, 4) for name, prompt in prompts.items()}


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


@pytest.mark.parametrize("max_num_seqs", [1, 2])
def test_kernels_are_compiled_by_made_up_requests_that_leave_nothing_behind(model: Path, max_num_seqs: int) -> None:
    core = start_on_gpu(model, max_num_seqs=max_num_seqs, max_model_len=20)
    runner_of(core).compile_kernels()
    assert_idle(core)
    # A graph captured while launches only say what to compile would be empty.
    assert runner_of(core)._graphs.num_captured == 0
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
