"""Slipway's engine without its server: requests and tokens go through the engine process's two sockets."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from engine.servers import CONTEXT, KV_CACHE_BYTES, MOST_SEQUENCES, ROOT, EngineError
from engine.traces import Trace
from engine.workload import Job, Prompts
from serving_image.engine.protocol import (
    AbortRequests,
    AddRequest,
    Drain,
    EngineFailed,
    EngineInput,
    EngineReady,
    SamplingParams,
    StepOutput,
    decode_output,
    encode,
)
from serving_image.options import EngineOptions, Quantization
from serving_image.server.engine_process import EngineProcess

_BUSY_LOOP = """
import sys
from serving_image.engine.process import die_with_parent
die_with_parent(int(sys.argv[1]))
while True: pass
"""
_BOOT_LIMIT = 60.0


@dataclass(frozen=True)
class Step:
    """A step's message: when it came, how many tokens it brought, and how long the device was at it."""

    time: float
    outputs: int
    running: int
    device_seconds: float


class DirectEngine:
    """A running engine process; made by :func:`running_engine`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], process: EngineProcess) -> None:
        self._requests: zmq.Socket[bytes] = context.socket(zmq.PUSH)
        self._outputs: zmq.Socket[bytes] = context.socket(zmq.PULL)
        self._requests.bind(process.input_address)
        self._outputs.bind(process.output_address)
        self._count = 0
        self.ready = self._boot()

    def close(self) -> None:
        self._requests.close(linger=0)
        self._outputs.close(linger=0)

    def send(self, message: EngineInput) -> None:
        self._requests.send(encode(message))

    def complete(self, jobs: Sequence[Job], limit: float) -> list[Trace]:
        """Send all jobs at once and wait for their ends.

        :raises EngineError: a request failed, or they took longer than ``limit`` seconds.
        """
        deadline = time.perf_counter() + limit
        started = self._add(jobs)
        arrivals: dict[str, list[tuple[float, float]]] = {name: [] for name in started}
        unfinished = set(arrivals)
        while unfinished:
            message = self._step(deadline)
            now = time.perf_counter()
            for output in message.outputs:
                if output.request_id not in arrivals:
                    continue
                if output.finish_reason not in (None, "length"):
                    raise EngineError(f"a request ended with {output.finish_reason}: {output.error}")
                if output.token_ids:
                    arrivals[output.request_id].append((now, float(len(output.token_ids))))
                if output.finish_reason is not None:
                    unfinished.remove(output.request_id)
        return [Trace(started[name], arrivals[name]) for name in started]

    def decode_steps(self, jobs: Sequence[Job], seconds: float, limit: float) -> list[Step]:
        """Steps of at least ``seconds`` in which all jobs decode; the jobs are aborted afterwards.

        :raises EngineError: a job ended within the time, or it took longer than ``limit`` seconds.
        """
        deadline = time.perf_counter() + limit
        names = self._add(jobs)
        waiting = set(names)
        while waiting:
            waiting -= {output.request_id for output in self._step(deadline).outputs if output.token_ids}
        steps = [self._next(deadline)]
        while steps[-1].time - steps[0].time < seconds or len(steps) < 3:
            steps.append(self._next(deadline))
            if steps[-1].running < len(jobs):
                raise EngineError("a request ended while it was to decode")
        self.send(AbortRequests(list(names)))
        while self._step(deadline).stats.num_running:
            pass
        return steps

    def _add(self, jobs: Sequence[Job]) -> dict[str, float]:
        """Send the jobs; the time of sending by request id, in the order of the jobs."""
        started = {}
        for job in jobs:
            self._count += 1
            name = str(self._count)
            sampling = SamplingParams(temperature=0, max_tokens=job.max_tokens)
            started[name] = time.perf_counter()
            self.send(AddRequest(request_id=name, prompt_token_ids=job.prompt, sampling=sampling))
        return started

    def _next(self, deadline: float) -> Step:
        message = self._step(deadline)
        tokens = sum(len(output.token_ids) for output in message.outputs)
        return Step(time.perf_counter(), tokens, message.stats.num_running, message.stats.step_seconds)

    def _step(self, deadline: float) -> StepOutput:
        message = self._receive(deadline)
        if not isinstance(message, StepOutput):
            raise EngineError(f"the engine says: {message}")
        return message

    def _boot(self) -> EngineReady:
        message = self._receive(time.perf_counter() + _BOOT_LIMIT)
        if not isinstance(message, EngineReady):
            raise EngineError(f"the engine did not start: {message}")
        return message

    def _receive(self, deadline: float) -> EngineReady | StepOutput | EngineFailed:
        if not self._outputs.poll(int(1000 * max(0.0, deadline - time.perf_counter()))):
            raise EngineError("the engine did not answer in time")
        message: EngineReady | StepOutput | EngineFailed = decode_output(self._outputs.recv())
        return message


@contextlib.contextmanager
def running_engine(model: Path, quantization: Quantization, log: Path) -> Iterator[DirectEngine]:
    """The engine process, warm, without prefix caching; what it logs goes to ``log``."""
    options = EngineOptions(
        model=str(model),
        device="cpu",
        quantization=quantization,
        max_model_len=CONTEXT,
        max_num_seqs=MOST_SEQUENCES,
        kv_cache_memory=KV_CACHE_BYTES,
        enable_prefix_caching=False,
    )
    with (
        _stderr_to(log),
        EngineProcess.spawn("serving_image.engine", options, "text") as process,
        zmq.Context() as context,
        contextlib.closing(DirectEngine(context, process)) as engine,
    ):
        yield engine
        engine.send(Drain())
        process.wait()


@contextlib.contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """Have child processes started in the block, and this one, write their errors to ``log``."""
    saved = os.dup(2)
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def busy_neighbour(core: int | None) -> Iterator[None]:
    """A process that computes without pause, on ``core`` or, if None, wherever the kernel puts it."""
    process = subprocess.Popen([sys.executable, "-c", _BUSY_LOOP, str(os.getpid())], cwd=ROOT)
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield
    finally:
        process.kill()
        process.wait()


def rate(steps: Sequence[Step]) -> float:
    """Tokens per second over the steps after the first."""
    return sum(step.outputs for step in steps[1:]) / (steps[-1].time - steps[0].time)


def idle_share(steps: Sequence[Step]) -> float:
    """Share of the time in which the device waited for the host: 1 − (its own time ÷ the time that passed)."""
    return 1 - sum(step.device_seconds for step in steps[1:]) / (steps[-1].time - steps[0].time)


def warm_up(engine: DirectEngine, key: str) -> None:
    """Unmeasured requests."""
    engine.complete(Prompts(f"warm {key}").jobs(8, 100, 8), limit=60)
