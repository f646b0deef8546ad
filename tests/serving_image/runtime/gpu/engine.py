"""The engine core over the GPU's runtime, and looks into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import AddRequest, SamplingParams
from serving_image.runtime.gpu.gpu_runner import GPURunner
from tests.serving_image.generation import boot_engine, start

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
