"""A real Slipway: ``slipway up`` on a temporary data folder and a free port, with the local hub for models."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from control_plane.settings import Settings
from control_plane.supervisor.data_folder import read_processes
from control_plane.supervisor.supervisor import ProcessReport
from tests.hub.server import HubServer
from tests.support.processes import eventually

BIN = Path(sys.executable).parent
_START_S = 180.0
_STOP_S = 60.0


@dataclass(frozen=True)
class RunningSlipway:
    """One that is up. ``announcement`` is what it printed: url, setup_url, api_url, curl, …"""

    process: subprocess.Popen[str]
    data_dir: Path
    announcement: Mapping[str, Any]
    api_key: str = field(repr=False)
    hub: HubServer
    environment: Mapping[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        """Address of the pages and the API."""
        return str(self.announcement["url"])

    @property
    def setup_url(self) -> str:
        """The one-time link that makes the first administrator."""
        return str(self.announcement["setup_url"])

    def client(self) -> httpx.Client:
        """An HTTP client with the operator's key."""
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.api_key}"}, timeout=60, trust_env=False
        )

    def api(self, method: str, path: str, **arguments: Any) -> Any:
        """A call of the REST API; its JSON."""
        with self.client() as client:
            response = client.request(method, f"/api/v1{path}", **arguments)
            response.raise_for_status()
            return response.json()

    def instance(self, name: str) -> dict[str, Any]:
        """The instance of this name, as the API shows it now."""
        return next(dict(item) for item in self.api("GET", "/instances")["items"] if item["name"] == name)

    def wait_for_phase(self, name: str, phase: str, timeout_s: float = 90.0) -> dict[str, Any]:
        """The instance, once it is in ``phase``."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.instance(name))
            return bool(seen["phase"] == phase)

        eventually(there, f"instance {name} becomes {phase}", timeout_s)
        return seen

    def cli(self, *argv: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A ``slipway`` command of the same user on the same machine."""
        return subprocess.run(
            [str(BIN / "slipway"), *argv],
            capture_output=True,
            text=True,
            env=dict(self.environment),
            timeout=timeout_s,
            check=False,
        )

    def processes(self) -> dict[str, ProcessReport]:
        """What the supervisor says of each process: what ``slipway status`` shows, without the cost of a command."""
        return {process.name: process for process in read_processes(Settings(data_dir=self.data_dir))}

    def kill(self, *names: str) -> None:
        """SIGKILL processes that the supervisor watches, all at once."""
        processes = self.processes()
        for name in names:
            pid = processes[name].pid
            assert pid is not None, f"{name} does not run"
            os.kill(pid, signal.SIGKILL)

    def wait_until_back(self, restarts: Mapping[str, int]) -> None:
        """Until these processes are ready again after this many restarts."""

        def back() -> bool:
            now = self.processes()
            return all(now[name].state == "ready" and now[name].restarts >= count for name, count in restarts.items())

        eventually(back, f"{', '.join(restarts)} ready again", 60)


@contextmanager
def slipway_up(
    data_dir: Path, hub: HubServer, *, starter: bool = True, environment: Mapping[str, str] | None = None
) -> Iterator[RunningSlipway]:
    """Run ``slipway up`` until it says that everything runs; stop it with SIGTERM afterwards.

    :raises RuntimeError: it does not come up, or does not end cleanly; carries what it said.
    """
    full = _environment(data_dir, hub) | dict(environment or {})
    argv = [str(BIN / "slipway"), "up", "--json", "--port", str(free_port()), "--data", str(data_dir)]
    with subprocess.Popen(
        argv if starter else [*argv, "--no-starter"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=full,
        cwd=data_dir.parent,
    ) as process:
        said = _Listening(process)
        try:
            announcement = json.loads(said.first_line(_START_S))
            api_key = json.loads((data_dir / "client.json").read_text())["api_key"]
            yield RunningSlipway(process, data_dir, announcement, api_key, hub, full)
            _stop(process, said)
        finally:
            process.kill()


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _environment(data_dir: Path, hub: HubServer) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLIPWAY_", "HF_"))}
    return inherited | {
        "SLIPWAY_DATA_DIR": str(data_dir),
        "SLIPWAY_REAP_INTERVAL_S": "3",
        "HF_ENDPOINT": hub.url,
        "NO_PROXY": "127.0.0.1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }


def _stop(process: subprocess.Popen[str], said: _Listening) -> None:
    if process.poll() is not None and process.returncode == -signal.SIGKILL:
        return  # the test did that
    process.send_signal(signal.SIGTERM)
    code = process.wait(_STOP_S)
    if code != 0:
        raise RuntimeError(f"slipway up ended with {code}:\n{said.everything()}")


class _Listening:
    """Reads both outputs of a process, so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._results: queue.Queue[str] = queue.Queue()
        for stream, results in ((process.stdout, self._results), (process.stderr, None)):
            threading.Thread(target=self._read, args=(stream, results), daemon=True).start()

    def _read(self, stream: Any, results: queue.Queue[str] | None) -> None:
        for line in stream:
            self._lines.append(line)
            if results is not None:
                results.put(line)
        if results is not None:
            results.put("")

    def first_line(self, timeout_s: float) -> str:
        """The first line on standard output."""
        try:
            line = self._results.get(timeout=timeout_s)
        except queue.Empty:
            line = ""
        if not line:
            raise RuntimeError(f"slipway up did not come up:\n{self.everything()}")
        return line

    def everything(self) -> str:
        """All it has said so far, on both."""
        return "".join(self._lines)
