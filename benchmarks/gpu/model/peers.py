"""Transformers on the same model and the same requests: ``generate`` one by one, and its continuous batching."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig, LlamaConfig

from benchmarks.gpu.model.driver import Jobs
from benchmarks.gpu.model.shape import LlamaShape
from benchmarks.gpu.targets import CONTINUOUS, ONE_BY_ONE

_PAGE = 256
_ONE_BY_ONE = (32, 96)
"""Tokens of the two answers whose times give that of a token and that of the prompt."""
_LIMIT = 120.0

Peers = dict[str, float]


def measure(
    keep: Callable[[Peers], None], say: Callable[[str], None], shape: LlamaShape | None = None, jobs: Jobs | None = None
) -> None:
    """Seconds for all requests, each way; a way that fails is said and left out."""
    jobs = jobs or Jobs(256, 1000, 1000)
    model = _model(shape or LlamaShape())
    for name, way in ((ONE_BY_ONE, one_by_one), (CONTINUOUS, continuous)):
        try:
            keep({name: way(model, jobs)})
        except Exception as error:
            say(f"{name}: {type(error).__name__}: {str(error)[:300]}")


def _model(shape: LlamaShape) -> Any:
    config = LlamaConfig(**shape.config())
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model.generation_config.eos_token_id = None
    return model.eval()


@torch.inference_mode()
def one_by_one(model: Any, jobs: Jobs) -> float:
    """Extrapolated from two requests with short answers: all prompts, and all tokens at the speed of the first."""
    few, more = (min(count, jobs.output - 1 + index) for index, count in enumerate(_ONE_BY_ONE))
    _generate(model, jobs.prompt, few)
    short, long = (_generate(model, jobs.prompt, count) for count in (few, more))
    token = (long - short) / (more - few)
    return jobs.requests * (short + token * (jobs.output - few))


def _generate(model: Any, prompt: int, output: int) -> float:
    ids = torch.randint(2, model.config.vocab_size, (1, prompt), device=model.device)
    started = time.perf_counter()
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=_settings(output))
    length = answer.shape[1]  # read on the host: the device has ended
    seconds = time.perf_counter() - started
    if length != prompt + output:
        raise ValueError(f"{length - prompt} tokens instead of {output}")
    return seconds


def continuous(model: Any, jobs: Jobs) -> float:
    """All requests at once; if they do not end in 120 s, these, which is less than it takes."""
    blocks = jobs.requests * -(-jobs.length // _PAGE) + 1
    config = ContinuousBatchingConfig(page_size=_PAGE, num_blocks=blocks, max_batch_tokens=8192)
    settings = _settings(jobs.output)
    settings.eos_token_id = -1
    prompts = random.Random(1)
    with model.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=config, block=False, timeout=5
    ) as manager:
        started = time.perf_counter()
        for _ in range(jobs.requests):
            ids = prompts.choices(range(2, model.config.vocab_size), k=jobs.prompt)
            manager.add_request(ids, max_new_tokens=jobs.output, eos_token_id=-1)
        unfinished = jobs.requests
        while unfinished and time.perf_counter() - started < _LIMIT:
            result = manager.get_result(timeout=1)
            if result is None:
                if not manager.is_running():
                    raise RuntimeError("the manager has stopped")
            elif result.is_finished():
                if result.error is not None:
                    raise RuntimeError(result.error)
                unfinished -= 1
        return time.perf_counter() - started


def _settings(output: int) -> Any:
    return GenerationConfig(max_new_tokens=output, do_sample=False, eos_token_id=None, pad_token_id=0)  # type: ignore[no-untyped-call]
