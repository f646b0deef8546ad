"""Watching one replica from its start to its end."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import select
import signal
import subprocess
import time
from typing import Any

from control_plane.providers.ssh_host.supervisor import machine
from control_plane.providers.ssh_host.supervisor.calls import HOST_GRACE_S
from control_plane.providers.ssh_host.supervisor.files import Json, read_json, write_json
from control_plane.providers.ssh_host.supervisor.log import append
from control_plane.providers.ssh_host.supervisor.ports import reserved_port
from control_plane.providers.ssh_host.supervisor.replicas import MARKER, Host, forget, taken_devices

INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|XDG_CACHE_HOME|SSL_CERT_(FILE|DIR)|"
    r"(http|https|no)_proxy|(HTTP|HTTPS|NO)_PROXY|(CUDA|NVIDIA|NCCL|TORCH|TRITON|OMP|MKL|MALLOC)_\w+"
)

#: Seconds to read on after a replica's death: its last words are what people need most.
LAST_WORDS_S = 3.0
#: Seconds between looks for a wish that it end.
LOOK_EVERY_S = 0.2
PR_SET_PDEATHSIG = 1


class Watch:
    """One replica from the start of its process to its end."""

    def __init__(self, host: Host, name: str) -> None:
        self.host, self.folder = host, host.folder(name)
        self.spec: Json = read_json(self.folder / "spec.json") or {}
        self.host_ends = False
        signal.signal(signal.SIGTERM, self.on_sigterm)

    def on_sigterm(self, *_: object) -> None:
        """The host shuts down, or an administrator ended the unit."""
        self.host_ends = True

    @property
    def stopping(self) -> float | None:
        """Within how many seconds it is to end; None while it is not to."""
        wish = read_json(self.folder / "stop.json")
        if wish is not None:
            return float(wish["grace_s"])
        return HOST_GRACE_S if self.host_ends else None

    def tell(self, state: str, **more: Any) -> None:
        """Write down what is known."""
        write_json(self.folder / "status.json", dict(more, state=state, boot_id=self.host.boot_id, pid=os.getpid()))

    def run(self) -> None:
        """Wait for devices, start the process, see it end."""
        self.tell("pending", reason="starting")
        devices = self.wait_for_devices()
        if devices is None:
            forget(self.host, self.folder)
            return
        with reserved_port(self.spec["address"]) as port:
            try:
                process = self.start(port, devices)
            except OSError as error:
                self.append(f"[slipway] cannot be started: {error}\n".encode())
                self.tell("exited", exit_code=127)
                return
            self.append(f"[slipway] started: process {process.pid}, port {port}\n".encode())
            self.tell("running", port=port, devices=devices, process=process.pid)
            code = self.follow(process)
        self.append(f"[slipway] ended: exit code {code}\n".encode())
        if self.host_ends:
            self.tell("lost", reason="the host ended it: a shutdown, or an administrator")
        elif self.stopping is not None:
            forget(self.host, self.folder)
        else:
            self.tell("exited", exit_code=code)

    def wait_for_devices(self) -> list[str] | None:
        """The uuids of free devices, which are ours from now on; None when it is to end before there are any."""
        count, model = self.spec["device_count"], self.spec["device"]
        while count and self.stopping is None:
            with self.host.locked():
                taken = taken_devices(self.host)
                free = [
                    gpu["uuid"]
                    for gpu in machine.gpus()
                    if gpu["model"] == model and not gpu["busy"] and gpu["uuid"] not in taken
                ]
                if len(free) >= count:
                    self.tell("pending", reason="starting", devices=free[:count])
                    return free[:count]
            self.tell("pending", reason=f"waiting for {count} free × {model}: {len(free)} are free now")
            time.sleep(1)
        return [] if self.stopping is None else None

    def start(self, port: int, devices: list[str]) -> subprocess.Popen[bytes]:
        """The process, in a session of its own."""
        secret, argv = str(self.folder / "secret"), list(self.spec["argv"])
        if self.spec["address"] is None:
            argv += ["--token-file", secret]
        else:
            argv += ["--host", self.spec["address"], "--port", str(port), "--api-key-file", secret]
        environment = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
        environment.update(self.spec["environment"], CUDA_VISIBLE_DEVICES=",".join(devices), PYTHONUNBUFFERED="1")
        environment[MARKER] = str(self.folder)
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=str(self.folder),
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (this process has one thread)
        )

    def follow(self, process: subprocess.Popen[bytes]) -> int:
        """Copy its output and obey wishes until it has ended; returns its exit code."""
        began_to_stop: float | None = None
        while process.poll() is None:
            self.copy_output(process, LOOK_EVERY_S)
            grace_s = self.stopping
            if grace_s is None:
                continue
            now = time.monotonic()
            if began_to_stop is None:  # to the first process alone: it drains, and needs its helpers for that
                began_to_stop = now
                process.send_signal(signal.SIGTERM)
            elif now - began_to_stop >= grace_s:
                kill_group(process.pid)
        kill_group(process.pid)  # what it left behind in its group
        deadline = time.monotonic() + LAST_WORDS_S
        while self.copy_output(process, 0.1) and time.monotonic() < deadline:
            pass
        return process.returncode

    def copy_output(self, process: subprocess.Popen[bytes], wait_s: float) -> bool:
        """What it said within ``wait_s`` seconds; False when it will say no more."""
        pipe = process.stdout
        if pipe is None or pipe.closed:
            time.sleep(wait_s)
            return False
        if not select.select([pipe], [], [], wait_s)[0]:
            return True
        data = os.read(pipe.fileno(), 1 << 16)
        if not data:
            pipe.close()
            return False
        self.append(data)
        return True

    def append(self, data: bytes) -> None:
        """Add to the log."""
        append(self.folder / "log", data)


def die_with_parent() -> None:
    """To be called in a child before it becomes another program."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """SIGKILL to whatever is left of a session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def watch(host: Host, name: str) -> None:
    """Watch ``name`` unless somebody does; a call that looks holds the lock for a moment, so try for a while."""
    with (host.folder(name) / "run.lock").open("w") as lock:
        for _ in range(250):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
            else:
                _watch(Watch(host, name))
                return


def _watch(replica: Watch) -> None:
    """What goes wrong here is told like everything else: nobody reads what this process prints."""
    try:
        replica.run()
    except Exception as error:
        reason = f"its supervisor failed ({type(error).__name__}: {error})"
        replica.append(f"[slipway] {reason}\n".encode())
        replica.tell("lost", reason=reason)
