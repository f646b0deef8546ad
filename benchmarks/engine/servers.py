"""Engines behind HTTP: Slipway's server and vLLM's, started alike, asked alike."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.processes import Memory, Tree, running
from engine.traces import Trace
from engine.workload import Job, Prompts

ROOT = Path(__file__).resolve().parents[2]
MODEL_NAME = "m"
#: Bytes of key/value cache for every engine: the largest case fills a quarter. vLLM touches all of it, twice.
KV_CACHE_BYTES = 2 * 2**30
CONTEXT = 4096
MOST_SEQUENCES = 64
_POLL_SECONDS = 0.05


class EngineError(Exception):
    """An engine did not start or did not answer; the text says how."""


@dataclass(frozen=True)
class Command:
    """How to start a server, how long that may take, and the path that answers 200 once it can serve."""

    argv: list[str]
    environment: dict[str, str]
    start_limit: float
    ready_path: str


class LoadClient:
    """The client process, and the share of one core that it has used while requests ran."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.cpu = 0.0
        self.wall = 0.0

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Iterator[LoadClient]:
        argv = [sys.executable, "-m", "engine.load_client"]
        folder = ROOT / "benchmarks"
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, start_new_session=True
        ) as process:
            try:
                yield cls(process)
            finally:
                process.kill()

    @property
    def share(self) -> float:
        """Of one core, over all requests so far."""
        return self.cpu / self.wall if self.wall else 0.0

    def send(self, port: int, bodies: Sequence[dict[str, Any]], limit: float) -> list[dict[str, Any]]:
        """One outcome per body; see :mod:`engine.load_client`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"port": port, "limit": limit, "bodies": list(bodies)})
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        self.cpu += answer["cpu"]
        self.wall += answer["wall"]
        outcomes: list[dict[str, Any]] = answer["outcomes"]
        return outcomes


@dataclass
class Server:
    """A running server. ``boot_seconds`` is from its spawning to the first token that it streamed."""

    port: int
    tree: Tree
    client: LoadClient
    boot_seconds: float = 0.0
    memory: dict[str, Memory] = field(default_factory=dict)

    @property
    def lives(self) -> bool:
        """Whether the process that was started has not ended."""
        return self.tree.process.poll() is None

    def complete(self, jobs: Sequence[Job], limit: float) -> list[Trace]:
        """Send all jobs at once.

        :raises EngineError: a request failed, or they took longer than ``limit`` seconds.
        """
        bodies = [_body(job) for job in jobs]
        outcomes = self.client.send(self.port, bodies, limit)
        problems = [outcome["error"] for outcome in outcomes if "error" in outcome]
        if problems:
            raise EngineError(f"{len(problems)} of {len(jobs)} requests failed; the first: {problems[0]}")
        traces = [_trace(outcome) for outcome in outcomes]
        for job, trace in zip(jobs, traces, strict=True):
            if round(trace.tokens) != job.max_tokens:
                raise EngineError(f"asked for {job.max_tokens} tokens, {trace.tokens:.0f} came")
        return traces

    def pause(self) -> None:
        """Stop its processes, so that they take no processor time from others."""
        self.tree.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.tree.signal(signal.SIGCONT)


def _body(job: Job) -> dict[str, Any]:
    return {
        "model": MODEL_NAME,
        "prompt": job.prompt,
        "max_tokens": job.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _trace(outcome: dict[str, Any]) -> Trace:
    events = outcome["events"]
    share = outcome["tokens"] / sum(count for _, count in events)
    return Trace(outcome["sent"], [(moment, count * share) for moment, count in events])


def slipway_command(model: Path, port: int, *, quantization: str, prefix_caching: bool) -> Command:
    argv = [sys.executable, "-m", "serving_image.cli", str(model), "--port", str(port), "--device", "cpu"]
    argv += ["--served-model-name", MODEL_NAME, "--log-format", "json", "--max-model-len", str(CONTEXT)]
    argv += ["--max-num-seqs", str(MOST_SEQUENCES), "--kv-cache-memory", str(KV_CACHE_BYTES)]
    argv += ["--quantization", quantization]
    argv += ["--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching"]
    return Command(argv, {}, start_limit=60, ready_path="/ready")


def vllm_command(python: Path, model: Path, port: int, *, prefix_caching: bool, cores: Sequence[int]) -> Command:
    argv = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16", "--served-model-name", MODEL_NAME]
    argv += ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(MOST_SEQUENCES)]
    argv += ["--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching"]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_BYTES // 2**30),
        # Without it vLLM leaves one core to its server.
        "VLLM_CPU_OMP_THREADS_BIND": f"{min(cores)}-{max(cores)}",
        "HF_HUB_OFFLINE": "1",
    }
    return Command(argv, environment, start_limit=420, ready_path="/health")


@contextlib.contextmanager
def serving(command: Command, port: int, log: Path, client: LoadClient) -> Iterator[Server]:
    """A server that has streamed its first token.

    :raises EngineError: it did not within its time limit.
    """
    started = time.perf_counter()
    with running(command.argv, log, command.environment, log.parent) as tree:
        server = Server(port, tree, client)
        _wait_ready(server, command.ready_path, started + command.start_limit, log)
        server.complete(Prompts(f"first {port} {started}").jobs(1, 8, 2), limit=60)
        server.boot_seconds = time.perf_counter() - started
        server.memory["loaded"] = tree.memory()
        yield server


def _wait_ready(server: Server, path: str, deadline: float, log: Path) -> None:
    while server.lives and time.perf_counter() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(_POLL_SECONDS)
    status = server.tree.process.poll()
    what = "is not ready in time" if status is None else f"ended with exit status {status}"
    last_lines = " / ".join(log.read_text(errors="replace").splitlines()[-4:])
    raise EngineError(f"the server {what}; its log ends: {last_lines}")
