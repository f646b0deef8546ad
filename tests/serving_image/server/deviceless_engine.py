"""An engine process with everything real but the device: every token is an `a`, or its step gets stuck.

Settings come from ``echo`` in the model's config.json: a step takes ``step_seconds``; step number ``stuck_at`` never
ends, because its thread ``sleeps``, or because native code in it ``holds`` the interpreter's lock, as ``stuck`` says.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
import types
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from serving_image.engine.block_demand import BlockDemand
from serving_image.engine.block_pool import BlockPool
from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import BootPhase, EngineReady
from serving_image.engine.request import Request
from serving_image.engine.scheduler import Scheduler
from serving_image.engine.step import SampledToken, ScheduledRequest, StepResult
from serving_image.engine.timeline import BootTimeline
from serving_image.options import EngineOptions

BLOCKS, BLOCK_SIZE = 64, 16
#: The vocabulary of the echo model begins with the visible ASCII characters.
LETTER_A = ord("a") - ord("!")


class Pending:
    def __init__(self, future: Future[StepResult]) -> None:
        self._future = future

    def wait(self, seconds: float) -> bool:
        return bool(wait([self._future], seconds).done)

    def result(self) -> StepResult:
        return self._future.result()


class StuckDevice:
    def __init__(self, vocab_size: int, settings: dict) -> None:
        self.vocab_size = vocab_size
        self._settings = settings
        self._worker = ThreadPoolExecutor(1)
        self._steps = 0

    def launch(self, scheduled: Sequence[ScheduledRequest]) -> Pending:
        return Pending(self._worker.submit(self._compute, list(scheduled)))

    def forget(self, requests: Sequence[Request]) -> None:
        """Nothing is kept."""

    def _compute(self, scheduled: list[ScheduledRequest]) -> StepResult:
        self._steps += 1
        if self._steps == self._settings.get("stuck_at"):
            self._get_stuck()
        time.sleep(self._settings.get("step_seconds", 0))
        token = SampledToken(LETTER_A, None)
        return StepResult(sampled={item.request: token for item in scheduled if item.samples})

    def _get_stuck(self) -> None:
        if self._settings["stuck"] == "holds":
            ctypes.PyDLL(None).sleep(3600)
        else:
            time.sleep(3600)


def boot(options: EngineOptions, timeline: BootTimeline) -> tuple[EngineCore, EngineReady]:
    config = json.loads((Path(options.model) / "config.json").read_text())
    pool = BlockPool(BLOCKS, BlockDemand(BLOCK_SIZE))
    max_model_len = BLOCKS * BLOCK_SIZE
    core = EngineCore(
        runner=StuckDevice(config["vocab_size"], config["echo"]),
        pool=pool,
        scheduler=Scheduler(pool, options.max_num_seqs, options.max_num_batched_tokens),
        max_model_len=max_model_len,
        seed=0,
        clock=time.monotonic,
    )
    ready = EngineReady(
        device="cpu",
        dtype="float32",
        parameters=0,
        vocab_size=config["vocab_size"],
        max_model_len=max_model_len,
        max_num_seqs=options.max_num_seqs,
        block_size=BLOCK_SIZE,
        num_blocks=BLOCKS,
        kv_cache_bytes=0,
        boot=[BootPhase("all", 0.0)],
    )
    return core, ready


def main() -> int:
    """The real ``main``, which imports its ``boot`` late: this one."""
    replaced = types.ModuleType("serving_image.engine.boot")
    replaced.boot = boot  # type: ignore[attr-defined]
    sys.modules["serving_image.engine.boot"] = replaced
    from serving_image.engine.__main__ import main as engine_main

    return engine_main()


if __name__ == "__main__":
    sys.exit(main())
