"""Tokens per second while another process keeps a core busy, against a quiet machine.

    .venv/bin/python benchmarks/busy_core.py [--rounds N] [--seconds S]

Starts the engine process with a 246M-parameter Llama (random weights) once for each way that OpenMP's threads can wait,
measures it quiet and beside a busy loop (free to move, or pinned to the last core), alternating over several rounds.
Writes benchmarks/results/busy_core.json and busy_core.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import zmq
from llama_246m import CONFIG

from serving_image.engine.process import SPIN_COUNT
from serving_image.engine.protocol import (
    AbortRequests,
    AddRequest,
    Drain,
    EngineInput,
    EngineOutput,
    EngineReady,
    SamplingParams,
    StepOutput,
    decode_output,
    encode,
)
from serving_image.options import EngineOptions
from serving_image.server.engine_process import EngineProcess

RESULTS = Path(__file__).resolve().parent / "results"
WAITING = {
    "spin for microseconds (Slipway's setting)": {"GOMP_SPINCOUNT": SPIN_COUNT},
    "sleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin for milliseconds (libgomp's default)": {"GOMP_SPINCOUNT": "300000"},
}
NEIGHBOURS = ("none", "free to move", "pinned to one core")
LOADS = {"1 request": 1, "16 requests": 16}
PROMPT_TOKENS = 64
MAX_TOKENS = 3000
BUSY_LOOP = """
import sys
from serving_image.engine.process import die_with_parent
die_with_parent(int(sys.argv[1]))
while True: pass
"""


class Engine:
    """A running engine process."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], process: EngineProcess) -> None:
        self._requests: zmq.Socket[bytes] = context.socket(zmq.PUSH)
        self._outputs: zmq.Socket[bytes] = context.socket(zmq.PULL)
        self._requests.bind(process.input_address)
        self._outputs.bind(process.output_address)
        self._sent = 0

    def close(self) -> None:
        """Close both sockets."""
        self._requests.close(linger=0)
        self._outputs.close(linger=0)

    def send(self, message: EngineInput) -> None:
        """Send one message to the engine."""
        self._requests.send(encode(message))

    def receive(self) -> EngineOutput:
        """The engine's next message."""
        message: EngineOutput = decode_output(self._outputs.recv())
        return message

    def tokens_per_second(self, num_requests: int, seconds: float) -> float:
        """Decoding rate of ``num_requests`` at once, over at least ``seconds`` and one step, prefill not counted."""
        sampling = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
        names = [f"{self._sent + index}" for index in range(num_requests)]
        self._sent += num_requests
        for index, name in enumerate(names):
            prompt = [(7 * position + index) % 31999 + 1 for position in range(PROMPT_TOKENS)]
            self.send(AddRequest(request_id=name, prompt_token_ids=prompt, sampling=sampling))
        while len(self._step().outputs) < num_requests:
            pass
        produced, started, elapsed = 0, time.perf_counter(), 0.0
        while elapsed < seconds:
            produced += len(self._step().outputs)
            elapsed = time.perf_counter() - started
        self.send(AbortRequests(names))
        while self._step().stats.num_running:
            pass
        return produced / elapsed

    def _step(self) -> StepOutput:
        message = self.receive()
        assert isinstance(message, StepOutput), message
        return message


@contextlib.contextmanager
def running_engine(model: Path, environment: dict[str, str]) -> Iterator[Engine]:
    """The engine with ``environment`` added to this process's."""
    saved = dict(os.environ)
    os.environ.update(environment)
    options = EngineOptions(model=str(model), device="cpu", load_format="dummy")
    try:
        with EngineProcess.spawn("serving_image.engine", options, "text") as process, zmq.Context() as context:
            os.environ.clear()
            os.environ.update(saved)
            engine = Engine(context, process)
            with contextlib.closing(engine):
                assert isinstance(engine.receive(), EngineReady)
                yield engine
                engine.send(Drain())
                process.wait()
    finally:
        os.environ.clear()
        os.environ.update(saved)


@contextlib.contextmanager
def neighbour(kind: str) -> Iterator[None]:
    """A process that computes without pause beside the engine, or none."""
    if kind == "none":
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY_LOOP, str(os.getpid())])
    try:
        if kind == "pinned to one core":
            os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        yield
    finally:
        process.kill()
        process.wait()


@dataclass
class Case:
    """One row of the table."""

    waiting: str
    load: str
    rates: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in NEIGHBOURS})

    def median(self, kind: str) -> float:
        """Median tokens per second beside this kind of neighbour."""
        return statistics.median(self.rates[kind])


def measure(rounds: int, seconds: float) -> list[Case]:
    """All cases; within a round each is measured beside each neighbour in turn."""
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        (model / "config.json").write_text(json.dumps(CONFIG))
        for waiting, environment in WAITING.items():
            with running_engine(model, environment) as engine:
                engine.tokens_per_second(2, 1.0)  # warm-up
                own = [Case(waiting, load) for load in LOADS]
                for _ in range(rounds):
                    for case in own:
                        for kind in NEIGHBOURS:
                            with neighbour(kind):
                                case.rates[kind].append(engine.tokens_per_second(LOADS[case.load], seconds))
                cases += own
    return cases


def table(cases: list[Case]) -> str:
    """The medians as Markdown."""
    lines = [
        "| OpenMP threads that wait | load | quiet, tok/s | beside a free busy loop | beside a pinned busy loop |",
        "|---|---|---:|---:|---:|",
    ]
    for case in cases:
        quiet = case.median("none")
        busy = [f"{case.median(kind):.1f} ({case.median(kind) / quiet:.0%})" for kind in NEIGHBOURS[1:]]
        lines.append(f"| {case.waiting} | {case.load} | {quiet:.1f} | {busy[0]} | {busy[1]} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    cases = measure(arguments.rounds, arguments.seconds)
    text = table(cases)
    note = (
        f"{len(os.sched_getaffinity(0))} cores, {arguments.rounds} rounds of {arguments.seconds:g} s, medians; "
        f"load average of the machine before the run: {load_before:.1f}."
    )
    print(f"{text}\n\n{note}")
    result = {"load_average_before": load_before, "cases": [asdict(case) for case in cases]}
    (RESULTS / "busy_core.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "busy_core.md").write_text(f"# Decoding beside a busy process\n\n{text}\n\n{note}\n")


if __name__ == "__main__":
    main()
