"""Child processes that are started, paused, weighed and ended with all their descendants."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

#: A server that drains has this long.
END_SECONDS = 20.0


class Memory(NamedTuple):
    """Bytes of a process tree: ``rss`` counts shared pages for every process, ``pss`` once."""

    rss: int
    pss: int


class Tree:
    """A process and its descendants."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def members(self) -> list[psutil.Process]:
        """Those that live, the oldest first."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def signal(self, number: int) -> None:
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(number)

    def memory(self) -> Memory:
        weighed = [member.memory_full_info() for member in self.members()]
        return Memory(sum(each.rss for each in weighed), sum(each.pss for each in weighed))

    def cpu_seconds(self) -> float:
        """Processor time of those that live."""
        return sum(sum(member.cpu_times()[:2]) for member in self.members())

    def end(self) -> None:
        """SIGTERM to the root, then SIGKILL to whatever is left; returns when all are gone."""
        members = self.members()
        self.signal(signal.SIGCONT)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS)
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()
        psutil.wait_procs(members, timeout=END_SECONDS)


@contextlib.contextmanager
def running(argv: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path) -> Iterator[Tree]:
    """A process in a session of its own, so that Ctrl-C reaches this one first; its output goes to ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=folder,
            start_new_session=True,
        )
    tree = Tree(process)
    try:
        yield tree
    finally:
        tree.end()


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
