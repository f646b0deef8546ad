"""Who is measured. Each holds its processes for the run and uses the processor only in its own turn."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from engine.cases import CASES, Case, Engine, Figures, beside_busy, idle_at_64
from engine.direct import running_engine, warm_up
from engine.processes import free_port
from engine.results import Record, Results
from engine.servers import ROOT, Command, EngineError, LoadClient, Server, serving, slipway_command, vllm_command
from engine.workload import BURST, Prompts

#: Of the burst's requests, so many are generated one by one: a rate needs no more.
ONE_BY_ONE = 4
_TRANSFORMERS_LIMIT = 420.0
_IDLE_SECONDS = 2.0


@dataclass
class Bench:
    """One run of the benchmark: what everyone shares. ``stack`` ends what lives as long as the run."""

    results: Results
    client: LoadClient
    stack: contextlib.ExitStack
    model: Path
    folder: Path
    cores: Sequence[int]
    cases: Sequence[str]
    started: float = field(default_factory=time.perf_counter)

    def wants(self, case: str) -> bool:
        return case in self.cases

    def group(self, prefix_caching: bool) -> list[Case]:
        return [case for case in CASES if case.prefix_caching == prefix_caching and self.wants(case.name)]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def say(self, text: str) -> None:
        print(f"[{time.perf_counter() - self.started:6.0f} s] {text}", flush=True)

    def record(self, round_: int, contender: str, case: str, measure: Callable[[], Figures]) -> None:
        """Measure and keep the figures; a failure is kept as such and loses nothing else."""
        figures: Figures = {}
        error = ""
        try:
            figures = measure()
        except (EngineError, ValueError, ArithmeticError, OSError, subprocess.SubprocessError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        self.results.records.append(Record(round_, contender, case, figures, error))
        self.say(
            f"round {round_}, {contender}, {case}: {error or ', '.join(f'{k} {v:.4g}' for k, v in figures.items())}"
        )

    def fail(self, round_: int, contender: str, error: Exception) -> None:
        """Keep why a contender's turn, or what was left of it, was lost."""
        self.results.records.append(Record(round_, contender, "turn", {}, f"{type(error).__name__}: {error}"))
        self.say(f"round {round_}, {contender}: {error}")

    def run_cases(self, round_: int, contender: str, cases: Sequence[Case], engine: Engine) -> None:
        """Measure each; servers are weighed after the burst."""
        for case in cases:
            self.record(round_, contender, case.name, partial(case.measure, engine, f"round {round_}"))
            if case.name == "burst" and isinstance(engine, Server):
                engine.memory["burst"] = engine.tree.memory()


class Contender(Protocol):
    """``turn`` measures the cases of one group in one round. It raises :class:`EngineError` if there is nothing to
    measure."""

    name: str

    def turn(self, bench: Bench, round_: int, *, prefix_caching: bool) -> None: ...


def warm(server: Server, key: str) -> None:
    """Unmeasured requests."""
    server.complete(Prompts(f"warm {key}").jobs(8, 100, 8), limit=120)


@dataclass
class SlipwayServer:
    """Slipway over HTTP. Without prefix caching it is started anew in each round, which measures its start."""

    name: str
    quantization: str
    _caching: Server | None = None

    def turn(self, bench: Bench, round_: int, *, prefix_caching: bool) -> None:
        cases = bench.group(prefix_caching)
        if prefix_caching:
            if cases:
                server = self._caching_server(bench, round_)
                warm(server, f"{self.name} {round_}")
                bench.run_cases(round_, self.name, cases, server)
            return
        if not cases and not bench.wants("boot") and not bench.wants("memory"):
            return
        with self._serving(bench, prefix_caching=False) as server:
            if bench.wants("boot"):
                bench.record(round_, self.name, "boot", lambda: {"first_token_s": server.boot_seconds})
            warm(server, f"{self.name} {round_}")
            bench.run_cases(round_, self.name, cases, server)
            if bench.wants("memory"):
                bench.record(round_, self.name, "memory", lambda: self._memory(bench, server, round_))

    def _serving(self, bench: Bench, *, prefix_caching: bool) -> contextlib.AbstractContextManager[Server]:
        port = free_port()
        command = slipway_command(bench.model, port, quantization=self.quantization, prefix_caching=prefix_caching)
        return serving(command, port, self._log(bench, prefix_caching), bench.client)

    def _log(self, bench: Bench, prefix_caching: bool) -> Path:
        return bench.log(f"{self.name}-{'caching' if prefix_caching else 'plain'}")

    def _caching_server(self, bench: Bench, round_: int) -> Server:
        if self._caching is None or not self._caching.lives:
            self._caching = bench.stack.enter_context(self._serving(bench, prefix_caching=True))
            bench.record(round_, self.name, "idle_cpu", partial(idle_cores, self._caching))
        return self._caching

    def _memory(self, bench: Bench, server: Server, round_: int) -> Figures:
        """Bytes; ``kv_in_use`` is what the burst's tokens fill, the rest of the cache is not touched."""
        figures = memory_figures(server)
        ready = next(line for line in self._log(bench, False).read_text().splitlines() if '"engine ready"' in line)
        fields = json.loads(ready)
        per_token = fields["kv_cache_bytes"] / (fields["num_blocks"] * fields["block_size"])
        tokens = sum(len(job.prompt) + job.max_tokens for job in Prompts(f"burst round {round_}").burst())
        return {**figures, "kv_in_use": tokens * per_token}


def memory_figures(server: Server) -> Figures:
    """What the tree weighed when it was loaded, and after the burst if there was one."""
    return {
        f"{kind}_{moment}": float(getattr(memory, kind))
        for moment, memory in server.memory.items()
        for kind in ("rss", "pss")
    }


@dataclass
class SlipwayDirect:
    """The same engine without HTTP, and what can only be measured there."""

    name: str
    quantization: Literal["none", "int8-dynamic"]

    def turn(self, bench: Bench, round_: int, *, prefix_caching: bool) -> None:
        cases = [] if prefix_caching else bench.group(prefix_caching=False)
        extra = [name for name in ("idle", "busy") if bench.wants(name) and not prefix_caching]
        if not cases and not extra:
            return
        with running_engine(bench.model, self.quantization, bench.log(self.name)) as engine:
            warm_up(engine, f"{self.name} {round_}")
            bench.run_cases(round_, self.name, cases, engine)
            key = f"round {round_}"
            if "idle" in extra:
                bench.record(round_, self.name, "idle", lambda: idle_at_64(engine, key))
            if "busy" in extra:
                bench.record(round_, self.name, "busy", lambda: beside_busy(engine, key, bench.cores))


@dataclass
class Vllm:
    """vLLM over HTTP: two servers, with prefix caching and without, stopped with SIGSTOP except in their turn.

    An idle one polls, and its start takes minutes.
    """

    name: str
    python: Path
    _servers: dict[bool, Server] = field(default_factory=dict)
    _failed: dict[bool, str] = field(default_factory=dict)

    def turn(self, bench: Bench, round_: int, *, prefix_caching: bool) -> None:
        cases = bench.group(prefix_caching)
        if not cases and not (bench.wants("boot") and not prefix_caching and not self._servers):
            return
        server = self._server(bench, round_, prefix_caching)
        server.go_on()
        try:
            warm(server, f"{self.name} {round_}")
            bench.run_cases(round_, self.name, cases, server)
            if bench.wants("memory") and not prefix_caching:
                bench.record(round_, self.name, "memory", lambda: memory_figures(server))
        finally:
            server.pause()

    def _server(self, bench: Bench, round_: int, prefix_caching: bool) -> Server:
        if prefix_caching in self._failed:
            raise EngineError(self._failed[prefix_caching])
        if prefix_caching not in self._servers:
            try:
                server = bench.stack.enter_context(self._start(bench, prefix_caching))
            except EngineError as error:
                self._failed[prefix_caching] = str(error)
                raise
            self._servers[prefix_caching] = server
            if bench.wants("boot"):
                bench.record(round_, self.name, "boot", lambda: {"first_token_s": server.boot_seconds})
            bench.record(round_, self.name, "idle_cpu", partial(idle_cores, server))
        return self._servers[prefix_caching]

    def _start(self, bench: Bench, prefix_caching: bool) -> contextlib.AbstractContextManager[Server]:
        bench.say(f"{self.name} starts {'with' if prefix_caching else 'without'} prefix caching; that takes minutes")
        port = free_port()
        command: Command = vllm_command(
            self.python, bench.model, port, prefix_caching=prefix_caching, cores=bench.cores
        )
        log = bench.log(f"vllm-{'caching' if prefix_caching else 'plain'}")
        return serving(command, port, log, bench.client)


def idle_cores(server: Server) -> Figures:
    """Processor time that an idle server takes, in cores."""
    before = server.tree.cpu_seconds()
    time.sleep(_IDLE_SECONDS)
    return {"cores": (server.tree.cpu_seconds() - before) / _IDLE_SECONDS}


@dataclass
class Transformers:
    """Transformers' three ways, the burst only. Static and continuous batches take minutes: in the first round only."""

    name: str
    ways: Sequence[str] = ("one-by-one", "static", "continuous")

    def turn(self, bench: Bench, round_: int, *, prefix_caching: bool) -> None:
        if prefix_caching or not bench.wants("burst"):
            return
        jobs = Prompts(f"burst round {round_}").burst()
        ways = dict.fromkeys(self.ways if round_ == 1 else self.ways[:1], jobs)
        first = (round_ - 1) * ONE_BY_ONE % BURST
        ways["one-by-one"] = jobs[first : first + ONE_BY_ONE]
        answers = _transformers_answers(bench, json.dumps(ways))
        for way in ways:
            bench.record(round_, f"{self.name}-{way}", "burst", partial(_rates, answers.get(way)))


def _transformers_answers(bench: Bench, jobs: str) -> dict[str, dict[str, float | str]]:
    """What each way came to; those that were not reached in time are missing."""
    argv = [sys.executable, "-m", "engine.transformers_peer", str(bench.model), str(len(bench.cores))]
    with bench.log("transformers").open("ab") as log:
        try:
            output = subprocess.run(
                argv,
                input=jobs.encode() + b"\n",
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT / "benchmarks",
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                timeout=_TRANSFORMERS_LIMIT,
                check=False,
            ).stdout
        except subprocess.TimeoutExpired as late:
            output = late.stdout or b""
    return {answer["way"]: answer for answer in map(json.loads, output.splitlines())}


def _rates(answer: dict[str, float | str] | None) -> Figures:
    if answer is None:
        raise EngineError(f"no answer within {_TRANSFORMERS_LIMIT:.0f} s, or it died; see its log")
    if "error" in answer:
        raise EngineError(str(answer["error"]))
    seconds = float(answer["seconds"])
    return {
        "output_tokens_per_s": float(answer["output_tokens"]) / seconds,
        "total_tokens_per_s": float(answer["total_tokens"]) / seconds,
    }
