"""What the engine does with one request, with 64, and with 256 at once."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.model.driver import Driver, Jobs
from benchmarks.gpu.model.shape import LlamaShape
from benchmarks.gpu.results import Ceilings, Figure


class Load(NamedTuple):
    """Sizes of the cases; the defaults are the issue's."""

    one: Jobs = Jobs(1, 128, 512)
    idle: Jobs = Jobs(64, 512, 256)
    many: Jobs = Jobs(256, 1000, 1000)
    batched_tokens: int = 8192


def measure(
    keep: Callable[[Figure], None], ceilings: Ceilings | None, shape: LlamaShape | None = None, load: Load | None = None
) -> None:
    """Boot once and measure all three; each case is run once before, shorter, so that its graphs are captured."""
    shape, load = shape or LlamaShape(), load or Load()
    cases = (load.one, load.idle, load.many)
    with tempfile.TemporaryDirectory() as folder:
        driver = Driver.boot(
            shape.write_config(Path(folder)),
            "dummy",
            requests=max(jobs.requests for jobs in cases),
            batched_tokens=load.batched_tokens,
            model_length=max(jobs.length for jobs in cases),
        )
    keep(_one(driver, shape, load.one))
    keep(_idle(driver, shape, load.idle))
    keep(_many(driver, shape, load.many, ceilings))


def _one(driver: Driver, shape: LlamaShape, jobs: Jobs) -> Figure:
    driver.run(jobs)
    run = driver.run(jobs)
    seconds = run.decode_seconds(1)
    return Figure(
        "one_request",
        str(jobs),
        seconds,
        shape.decode_bytes(1, jobs.context),
        shape.decode_operations(1, jobs.context),
        values={"tokens_per_s": 1 / seconds, "first_token_s": run.first_token},
        note="the time is a token's",
    )


def _idle(driver: Driver, shape: LlamaShape, jobs: Jobs) -> Figure:
    driver.run(jobs)
    run = driver.run(jobs)
    return Figure(
        "idle",
        str(jobs),
        run.decode_seconds(jobs.requests),
        shape.decode_bytes(jobs.requests, jobs.context),
        shape.decode_operations(jobs.requests, jobs.context),
        values={"idle_share": run.idle_share(jobs.requests)},
        note="the time is a step's; idle is what the steps' own CUDA events leave of the time between results",
    )


def _many(driver: Driver, shape: LlamaShape, jobs: Jobs, ceilings: Ceilings | None) -> Figure:
    driver.run(jobs._replace(output=max(jobs.output // 8, 32)))
    run = driver.run(jobs)
    decodes = run.decodes(jobs.requests)
    values = {
        "output_tokens_per_s": jobs.requests * jobs.output / run.seconds,
        "first_token_s": run.first_token,
        "decode_step_s": run.decode_seconds(jobs.requests),
        "decode_step_on_device_s": statistics.median(step.device_seconds for step in decodes),
    }
    if ceilings:
        values["decode_step_floor_s"] = shape.step_floor(jobs.requests, jobs.context, ceilings)
    return Figure(
        "many_requests",
        str(jobs),
        run.seconds,
        jobs.output * shape.decode_bytes(jobs.requests, jobs.context),
        jobs.requests * shape.prompt_operations(jobs.prompt)
        + jobs.output * shape.decode_operations(jobs.requests, jobs.context),
        values=values,
        note="the time is that of all requests; floors without the prompts' bytes",
    )
