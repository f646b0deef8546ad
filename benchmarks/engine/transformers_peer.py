"""Transformers on one workload, in a process of its own: ``python -m engine.transformers_peer MODEL CORES``.

Reads a line of JSON from standard input, ``{"one-by-one": jobs, "static": jobs, "continuous": jobs}``, and writes a
line for each way of generating, ``{"way", "seconds", "output_tokens", "total_tokens"}`` or ``{"way", "error"}``.
Settings: bfloat16, SDPA, a thread per core, greedy, no end token; one unmeasured request goes before each way.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from engine.workload import Job

_PAGE = 256
_MOST_BATCH_TOKENS = 2048


def _settings(max_tokens: int) -> Any:
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )


@torch.inference_mode()
def one_by_one(model: Any, jobs: Sequence[Job]) -> None:
    """``generate`` for each request in turn."""
    for job in jobs:
        ids = torch.tensor([job.prompt])
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=_settings(job.max_tokens))
        assert answer.shape[1] == len(job.prompt) + job.max_tokens


@torch.inference_mode()
def static(model: Any, jobs: Sequence[Job]) -> None:
    """One ``generate`` for all: padded to the longest prompt, run until the longest answer is there."""
    width, longest = max(len(job.prompt) for job in jobs), max(job.max_tokens for job in jobs)
    ids = torch.tensor([[0] * (width - len(job.prompt)) + job.prompt for job in jobs])
    mask = torch.tensor([[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in jobs])
    answer = model.generate(ids, attention_mask=mask, generation_config=_settings(longest))
    assert answer.shape == (len(jobs), width + longest)


def continuous(model: Any, jobs: Sequence[Job]) -> None:
    """Continuous batching over a paged cache, each request with its own length."""
    pages = sum(-(-(len(job.prompt) + job.max_tokens) // _PAGE) for job in jobs)
    config = ContinuousBatchingConfig(page_size=_PAGE, num_blocks=pages + 1, max_batch_tokens=_MOST_BATCH_TOKENS)
    settings = _settings(max(job.max_tokens for job in jobs))
    settings.eos_token_id = -1
    with model.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=config, block=True, timeout=5
    ) as manager:
        wanted = {manager.add_request(job.prompt, max_new_tokens=job.max_tokens, eos_token_id=-1): job for job in jobs}
        while wanted:
            result = manager.get_result(timeout=1)
            if result is None:
                assert manager.is_running(), "the manager has stopped"
            elif result.is_finished():
                job = wanted.pop(result.request_id)
                assert result.error is None, result.error
                assert len(result.generated_tokens) == job.max_tokens


WAYS: dict[str, Callable[[Any, Sequence[Job]], None]] = {
    "one-by-one": one_by_one,
    "static": static,
    "continuous": continuous,
}


def _measure(way: str, model: Any, jobs: Sequence[Job]) -> dict[str, Any]:
    try:
        WAYS[way](model, [Job(jobs[0].prompt[:16], 4)])
        started = time.perf_counter()
        WAYS[way](model, jobs)
    except Exception as error:
        return {"way": way, "error": f"{type(error).__name__}: {error}"}
    output = sum(job.max_tokens for job in jobs)
    total = output + sum(len(job.prompt) for job in jobs)
    return {"way": way, "seconds": time.perf_counter() - started, "output_tokens": output, "total_tokens": total}


def main() -> None:
    """Load the model, then each way in turn."""
    torch.set_num_threads(int(sys.argv[2]))
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16, attn_implementation="sdpa")
    model.generation_config.eos_token_id = None
    for way, jobs in json.loads(sys.stdin.readline()).items():
        result = _measure(way, model, [Job(*job) for job in jobs])
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
