"""Looking at real processes from outside: which there are, and whether they are gone."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


def eventually(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Poll until ``condition`` holds.

    :raises TimeoutError: it does not, within ``timeout_s`` seconds; names ``what``.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.05)


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants, as they are now."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run. psutil compares start times, so a reused pid does not count; nor does a zombie."""
    return [process for process in processes if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
