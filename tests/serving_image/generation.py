"""Driving an engine core in the test's own process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving_image.engine.boot import BootedEngine, boot
from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import AddRequest, RequestOutput, SamplingParams, StepOutput
from serving_image.engine.timeline import BootTimeline
from serving_image.options import EngineOptions


def start(model: object, **options: Any) -> EngineCore:
    """An engine core for a model folder, in float32 unless told otherwise."""
    return boot_engine(model, **options).core


def boot_engine(model: object, **options: Any) -> BootedEngine:
    """Like :func:`start`, with what the engine says about itself."""
    settings: dict[str, Any] = {"dtype": "float32", "device": "cpu", "max_num_seqs": 32, "block_size": 32, "threads": 1}
    return boot(EngineOptions(model=str(model), **(settings | options)), BootTimeline(lambda: 0.0))


def greedy_request(request_id: str, prompt: Sequence[int], max_tokens: int) -> AddRequest:
    return AddRequest(
        request_id=request_id,
        prompt_token_ids=list(prompt),
        sampling=SamplingParams(temperature=0, max_tokens=max_tokens),
    )


def run_to_end(core: EngineCore) -> tuple[list[RequestOutput], list[StepOutput]]:
    """Step until nothing is live; every output in order, and every step."""
    steps = []
    while core.has_work:
        steps.append(core.step())
        assert len(steps) < 10_000
    return [output for step in steps for output in step.outputs], steps


def tokens_by_request(outputs: Sequence[RequestOutput]) -> dict[str, list[int]]:
    tokens: dict[str, list[int]] = {}
    for output in outputs:
        tokens.setdefault(output.request_id, []).extend(output.token_ids)
    return tokens


def generate(core: EngineCore, prompt: Sequence[int], max_tokens: int) -> list[int]:
    """One greedy request, alone."""
    assert core.add(greedy_request("only", prompt, max_tokens)) is None
    outputs, _ = run_to_end(core)
    return tokens_by_request(outputs)["only"]
