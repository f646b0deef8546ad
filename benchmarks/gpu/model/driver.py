"""Drives an engine's core in this process and notes when what came of it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from serving_image.engine.boot import boot
from serving_image.engine.core import EngineCore
from serving_image.engine.protocol import AddRequest, SamplingParams
from serving_image.engine.timeline import BootTimeline
from serving_image.options import EngineOptions, LoadFormat


class Jobs(NamedTuple):
    """So many requests at once, with prompts and answers of so many tokens."""

    requests: int
    prompt: int
    output: int

    def __str__(self) -> str:
        return f"{self.requests} × {self.prompt} in, {self.output} out"

    @property
    def length(self) -> int:
        return self.prompt + self.output

    @property
    def context(self) -> float:
        """The mean context of a decode."""
        return self.prompt + self.output / 2


class Step(NamedTuple):
    """One step as it was read: when, how many tokens it computed and yielded, and how long the device was at it."""

    time: float
    computed: int
    yielded: int
    device_seconds: float


@dataclass
class Run:
    """Requests from the first ``add`` to the last one's end; times are of ``time.perf_counter``."""

    started: float
    steps: list[Step] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.steps[-1].time - self.started

    @property
    def first_token(self) -> float:
        """Seconds to the first token of any request."""
        return next(step.time for step in self.steps if step.yielded) - self.started

    def decodes(self, requests: int) -> list[Step]:
        """The steps that did nothing but decode so many requests, without the first few."""
        return [step for step in self.steps if step.computed == step.yielded == requests][8:]

    def decode_seconds(self, requests: int) -> float:
        """Seconds per step while so many decode: of all time that passes, the last quarter of the steps left out, in
        which requests end.

        :raises ValueError: there were too few such steps.
        """
        steps = self.decodes(requests)
        if len(steps) < 16:
            raise ValueError(f"only {len(steps)} steps decoded {requests} requests")
        return (steps[-1].time - steps[0].time) / (len(steps) - 1)

    def idle_share(self, requests: int) -> float:
        """What the device's own times leave of the time that passed over those steps."""
        steps = self.decodes(requests)
        passed = steps[-1].time - steps[0].time
        return 1 - sum(step.device_seconds for step in steps[1:]) / passed


class Driver:
    """An engine and a source of prompts that never repeat. ``phases``: seconds of each phase of its boot."""

    def __init__(self, core: EngineCore, vocab_size: int, phases: dict[str, float]) -> None:
        self.phases = phases
        self._core = core
        self._vocab_size = vocab_size
        self._random = random.Random(0)
        self._count = 0

    @classmethod
    def boot(
        cls, folder: Path, load_format: LoadFormat, *, requests: int, batched_tokens: int, model_length: int
    ) -> Driver:
        """Boot an engine for so many requests at once on what device there is; prefixes are not shared."""
        started = time.perf_counter()
        options = EngineOptions(
            model=str(folder),
            load_format=load_format,
            enable_prefix_caching=False,
            max_num_seqs=requests,
            max_num_batched_tokens=batched_tokens,
            max_model_len=model_length,
        )
        booted = boot(options, BootTimeline(lambda: time.perf_counter() - started))
        return cls(booted.core, booted.ready.vocab_size, {phase.name: phase.seconds for phase in booted.ready.boot})

    def run(self, jobs: Jobs, *, most_seconds: float = 240.0) -> Run:
        """Greedy requests of random tokens, all at once, never stopped by an end token.

        :raises RuntimeError: a request failed, or they took longer than ``most_seconds``.
        """
        added = [self._request(jobs.prompt, jobs.output) for _ in range(jobs.requests)]
        run = Run(time.perf_counter())
        for request in added:
            refused = self._core.add(request)
            if refused is not None:
                raise RuntimeError(refused.error)
        unfinished = jobs.requests
        while unfinished:
            step = self._core.step()
            now = time.perf_counter()
            if now - run.started > most_seconds:
                raise RuntimeError(
                    f"{unfinished} of {jobs.requests} requests have not ended after {most_seconds:.0f} s"
                )
            failed = [output.error for output in step.outputs if output.error]
            if failed:
                raise RuntimeError(failed[0])
            unfinished -= sum(output.finish_reason is not None for output in step.outputs)
            if step.stats.batch_tokens:
                yielded = sum(len(output.token_ids) for output in step.outputs)
                run.steps.append(Step(now, step.stats.batch_tokens, yielded, step.stats.step_seconds))
        return run

    def _request(self, prompt: int, output: int) -> AddRequest:
        self._count += 1
        tokens = self._random.choices(range(2, self._vocab_size), k=prompt)
        sampling = SamplingParams(temperature=0.0, max_tokens=output)
        return AddRequest(request_id=str(self._count), prompt_token_ids=tokens, sampling=sampling)
