"""The server under soak and what its two processes hold."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

_PATIENCE = 120.0


@dataclass(frozen=True)
class Footprint:
    """What a process holds: resident memory in bytes, open files, threads."""

    resident: int
    files: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> Footprint:
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())


@dataclass(frozen=True)
class State:
    """Everything that must be the same before and after."""

    server: Footprint
    engine: Footprint
    tasks: int


class SoakServer:
    """A running ``slipway-serve`` whose log is a file."""

    def __init__(self, process: psutil.Popen, log: Path) -> None:
        self._process = process
        self._log = log
        self.url = ""

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_ready(self) -> None:
        """:raises RuntimeError: it ended instead."""
        _wait_until(lambda: "\nready " in f"\n{self.log}" or self._process.poll() is not None, "the server is ready")
        found = re.search(r"^ready (\S+)$", self.log, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"the server ended:\n{self.log}")
        self.url = found[1]

    def metrics(self) -> dict[str, float]:
        """Every sample by name, those of several series summed."""
        samples: dict[str, float] = {}
        for line in httpx.get(f"{self.url}/metrics", timeout=_PATIENCE).text.splitlines():
            if line.startswith("#"):
                continue
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            samples[name] = samples.get(name, 0.0) + float(value)
        return samples

    def wait_idle(self) -> None:
        """Until the engine has nothing to do and has told so, and every connection but the asking one is closed."""
        _wait_until(lambda: _is_idle(self.metrics()), "the engine is idle")
        _wait_until(lambda: not self._connections(), "the connections are closed")

    def state(self) -> State:
        """What both processes hold now; call it when idle."""
        engine = psutil.Process(int(self._engine.pid))
        return State(Footprint.of(self._process), Footprint.of(engine), int(self.metrics()["slipway:server_tasks"]))

    @property
    def _engine(self) -> psutil.Process:
        (engine,) = self._process.children()
        return engine

    def _connections(self) -> list[object]:
        connections = self._process.net_connections("tcp")
        return [connection for connection in connections if connection.status == psutil.CONN_ESTABLISHED]

    def terminate(self) -> int:
        """Ask for a drain; the exit status."""
        self._process.terminate()
        return int(self._process.wait(_PATIENCE))


@contextmanager
def soak_server(model: Path, log: Path, options: list[str]) -> Iterator[SoakServer]:
    """``slipway-serve`` on a free port, killed at the end if it still runs."""
    argv = [sys.executable, "-m", "serving_image.cli", str(model), "--port", "0", *options]
    with log.open("wb") as stderr:
        process = psutil.Popen(argv, stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        server = SoakServer(process, log)
        server.wait_ready()
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _is_idle(metrics: dict[str, float]) -> bool:
    return metrics["vllm:num_requests_running"] == metrics["vllm:num_requests_waiting"] == 0


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {_PATIENCE:g} s: {what}")
        time.sleep(0.05)
