"""Constraints, penalties, seeds and reports: what the engine on a CPU yields, or Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import RequestOutput
from serving_image.engine.step import ScheduledRequest
from serving_image.runtime.failures import NOTHING_TO_CHOOSE
from serving_image.runtime.gpu.pending_step import GPUStep
from tests.serving_image.checkpoints import random_prompt, transformers_greedy
from tests.serving_image.generation import run_to_end, start, tokens_by_request
from tests.serving_image.runtime.gpu.engine import ask, assert_idle, runner_of, start_on_gpu

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
