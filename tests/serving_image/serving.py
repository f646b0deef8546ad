"""A ``slipway-serve`` process under test: start it, find its address, wait for its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import psutil

#: Processes here share two cores with others; a test that needs these seconds fails only when something hangs.
PATIENCE = 90.0
ENGINES = {
    "echo": "tests.serving_image.server.echo_engine",
    "deviceless": "tests.serving_image.server.deviceless_engine",
    "real": "serving_image.engine",
}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until ``condition`` holds; fail with ``what`` after a bounded time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.02)


@dataclass
class RunningServer:
    """``log`` is the file that takes the process's standard error."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    @property
    def url(self) -> str | None:
        """The address of the ``ready`` line, once there is one."""
        return next((line.split()[1] for line in self.lines if line.startswith("ready ")), None)

    def wait_ready(self) -> None:
        wait_until(lambda: self.url is not None or self.process.poll() is not None, "the server is ready")
        assert self.url is not None, self.log.read_text()

    def client(self, api_key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=PATIENCE)

    def post(self, path: str, body: object) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=PATIENCE)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=PATIENCE)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one metric now; the series whose labels include ``labels``."""
        for line in self.get("/metrics").text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{key}="{text}"' in series for key, text in labels.items()):
                return float(value)
        raise AssertionError(f"no metric {name} {labels}")

    @property
    def engine(self) -> psutil.Process:
        """The engine's process."""
        (engine,) = psutil.Process(self.process.pid).children()
        return engine

    def wait_end(self) -> int:
        """The exit status, once the process has ended."""
        wait_until(lambda: self.process.poll() is not None, "the server has ended")
        return self.process.returncode

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def started_server(model: str | Path, *options: str, engine: str = "real", **env: str) -> Iterator[RunningServer]:
    """``slipway-serve MODEL`` on a free port; killed at the end if it still runs."""
    start = "import sys; from serving_image.cli import main; sys.exit(main(sys.argv[2:], engine_module=sys.argv[1]))"
    argv = [sys.executable, "-c", start, ENGINES[engine], str(model), "--port", "0", *options]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=stderr, env={**os.environ, **env})
        try:
            yield RunningServer(process, log)
        finally:
            process.kill()
            process.wait()


@contextmanager
def running_server(model: str | Path, *options: str, engine: str = "real", **env: str) -> Iterator[RunningServer]:
    """:func:`started_server`, ready."""
    with started_server(model, *options, engine=engine, **env) as server:
        server.wait_ready()
        yield server
