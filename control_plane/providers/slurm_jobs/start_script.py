#!/usr/bin/env python3
"""The batch script of a replica's job: it runs the engine, and sees to it that no other run of this replica goes on.

Slurm copies this file to the node that runs the job, so it needs nothing but Python 3.9 there, and is never imported.
What to run it reads from the shared folder (see shared_folder.py). Slurm can run a job twice at once: when a node is
cut off, the job is run elsewhere while its first run goes on. The fence::

    a job starts ──► is it the one in claim.json? ──► writes run.json (job, number of the run) ──► starts the engine
                                                            │
    every half second it reads boot.json and run.json: another boot, another run, or no answer from the storage for
    lease_s seconds, and it kills its engine. So whoever took over last is the only one when that time has passed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

POLL_S = 0.5
#: Seconds to read on after the engine's end: its last words are what people need most.
LAST_WORDS_S = 5.0
SEGMENT_BYTES, SEGMENTS_KEPT = 4 << 20, 4
#: EX_TEMPFAIL of sysexits.h: this run had to give way.
FENCED = 75
_PR_SET_PDEATHSIG = 1


class Orders(NamedTuple):
    """What the shared folder says; ``stop_grace_s`` is None while the engine may run."""

    fenced: str | None = None
    stop_grace_s: float | None = None


class Log:
    """Appends to the replica's log: segments named by the offset of their first byte (see providers/log_store.py)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, data: bytes) -> None:
        """Add ``data``; the oldest segment goes when there is one too many. A full disk must not stop the engine."""
        with contextlib.suppress(OSError):
            self._append(data)

    def _append(self, data: bytes) -> None:
        segments = sorted(self._folder.glob("*.log"))
        target = segments[-1] if segments else self._folder / f"{0:020d}.log"
        size = target.stat().st_size if segments else 0
        if size >= SEGMENT_BYTES:
            target = self._folder / f"{int(target.stem) + size:020d}.log"
            for old in segments[: max(0, len(segments) + 1 - SEGMENTS_KEPT)]:
                old.unlink()
        with target.open("ab") as file:
            file.write(data)

    def say(self, text: str) -> None:
        """A line of this script's own."""
        self.append(f"[slipway] {text}\n".encode())


class Watch:
    """Reads the orders in a thread of its own: storage that hangs must not keep the engine from being killed."""

    def __init__(self, folder: Path, plan: dict[str, Any], run: dict[str, Any]) -> None:
        self._files = folder.parent / "boot.json", folder / "run.json", folder / "stop.json"
        self._boot_token = plan["boot_token"]
        self._lease_s = plan["lease_s"]
        self._run = run
        self._orders = Orders()
        self._read_at = time.monotonic()
        threading.Thread(target=self._loop, daemon=True).start()

    @property
    def orders(self) -> Orders:
        """The latest; a fence where they are too old."""
        silent_s = time.monotonic() - self._read_at
        if silent_s > self._lease_s:
            return Orders(fenced=f"the shared folder has not answered for {silent_s:.0f} s")
        return self._orders

    def _loop(self) -> None:
        while True:
            started = time.monotonic()
            try:
                self._orders = self.read()
                self._read_at = started
            except (OSError, ValueError):
                pass  # the lease runs on
            time.sleep(POLL_S)

    def read(self) -> Orders:
        """The orders as they are now."""
        boot = json.loads(self._files[0].read_text())
        if boot["token"] != self._boot_token:
            return Orders(fenced="another boot of this replica has taken over, or it was deleted")
        run = json.loads(self._files[1].read_text())
        if run != self._run:
            return Orders(fenced=f"run {run['number']} of Slurm job {run['job']} on {run['node']} has taken over")
        try:
            return Orders(stop_grace_s=json.loads(self._files[2].read_text())["grace_s"])
        except FileNotFoundError:
            return Orders()


def main() -> int:
    """Run the engine; its exit code, as a shell would report it."""
    folder = Path(os.environ["SLIPWAY_REPLICA_FOLDER"])
    job, number = int(os.environ["SLURM_JOB_ID"]), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    try:
        plan = json.loads((folder / "replica.json").read_text())
    except FileNotFoundError:
        print("this replica was deleted before its job began")
        return 0
    if claim(folder, job) != job:
        print("another job runs this replica")
        return 0
    log = Log(folder.parent / "log")
    node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    with reserve_port(plan["addresses"].get(node, node)) as reservation:
        host, port = reservation.getsockname()[:2]
        run = {"job": job, "number": number, "node": node, "port": port}
        if not take_over(folder / "run.json", run):
            print("a later run has taken over")
            return 0
        try:
            engine = start(plan, host, port)
        except OSError as error:
            log.say(f"{plan['argv'][0]} cannot be started on {node} ({error.strerror}): see SLIPWAY_SLURM_ENGINE")
            return finish(folder, run, 127, f"{plan['argv'][0]} cannot be started on {node}")
        log.say(f"engine started: process {engine.pid} on {node}, Slurm job {job}, run {number}")
        return supervise(folder, run, engine, Watch(folder, plan, run), log)


def claim(folder: Path, job: int) -> int:
    """The job that may run this boot: this one, unless another was first."""
    draft = folder / f".claim-{job}-{os.getpid()}"
    draft.write_text(json.dumps({"job": job}))
    try:
        os.link(draft, folder / "claim.json")
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return int(json.loads((folder / "claim.json").read_text())["job"])


def take_over(path: Path, run: dict[str, Any]) -> bool:
    """Make this the run that counts; False where a later one is there."""
    try:
        present = json.loads(path.read_text())
    except FileNotFoundError:
        present = {"number": -1}
    if present["number"] > run["number"]:
        return False
    replace(path, run)
    return True


def replace(path: Path, value: dict[str, Any]) -> None:
    """Write a file so that it is whole whenever it is read."""
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    draft.write_text(json.dumps(value))
    draft.replace(path)


def reserve_port(host: str) -> socket.socket:
    """A socket bound to a free port of ``host``, never listened on.

    While it is open nobody is given the port by chance; the engine may bind it because both sides set SO_REUSEADDR.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    reservation = socket.socket(family, kind, protocol)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(address)
    return reservation


def start(plan: dict[str, Any], host: str, port: int) -> subprocess.Popen[bytes]:
    """Start the engine in a process group of its own; it dies with this script, however that dies."""
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    # An engine that finds SLURM_* takes itself for one rank of many.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SLIPWAY_"))}
    return subprocess.Popen(
        [*plan["argv"], f"--host={host}", f"--port={port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**inherited, **plan["environment"]},
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - there is no other thread yet
    )


def supervise(folder: Path, run: dict[str, Any], engine: subprocess.Popen[bytes], watch: Watch, log: Log) -> int:
    """Wait for the engine's end, or bring it about when the orders say so."""
    # Slurm signals every process of a job: the engine drains by itself, and this script stays to see how it ends.
    told_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told_to_end.append(number))
    pump = threading.Thread(target=copy_output, args=(engine, log), daemon=True)
    pump.start()
    kill_at: float | None = None
    while engine.poll() is None:
        orders = watch.orders
        if orders.fenced:
            kill(engine)
            log.say(f"run {run['number']} of Slurm job {run['job']} was killed: {orders.fenced}")
            return FENCED
        if orders.stop_grace_s is not None and kill_at is None:
            kill_at = time.monotonic() + orders.stop_grace_s
            engine.terminate()
        if kill_at is not None and time.monotonic() >= kill_at:
            kill(engine)
            log.say(f"the engine did not end within {orders.stop_grace_s:g} s and was killed")
        try:
            engine.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    kill(engine)  # what it started, too
    pump.join(LAST_WORDS_S)
    cause = ", told to end by Slurm" if told_to_end else ""
    log.say(f"the engine has ended with exit code {engine.returncode}{cause}")
    return finish(folder, run, engine.returncode, None)


def copy_output(engine: subprocess.Popen[bytes], log: Log) -> None:
    """Copy what the engine writes into the log until it writes no more."""
    while engine.stdout is not None and (data := os.read(engine.stdout.fileno(), 1 << 16)):
        log.append(data)


def kill(engine: subprocess.Popen[bytes]) -> None:
    """Kill the engine and whatever is left of its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(engine.pid, signal.SIGKILL)
    engine.wait()


def finish(folder: Path, run: dict[str, Any], exit_code: int, reason: str | None) -> int:
    """Leave word of the end: Slurm forgets a job within minutes."""
    end = {"job": run["job"], "number": run["number"], "exit_code": exit_code, "reason": reason}
    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile: nobody wants to know
        replace(folder / "end.json", end)
    return exit_code if exit_code >= 0 else 128 - exit_code


if __name__ == "__main__":
    sys.exit(main())
