"""``python -m tests.support.slurm_guard FOLDER``: waits for the end of its input, then ends the cluster of that folder.

A job goes on when its node's daemon dies, so a parent-death signal for the daemons is not enough: when the test run is
killed, this process, whose input ends with it, cleans up.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import psutil

from tests.support.processes import alive, eventually


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process of the cluster in ``folder``, job steps and what they started included: all name it."""
    own = psutil.Process().pid
    return [process for process in psutil.process_iter() if process.pid != own and _names(process.pid, folder)]


def _names(pid: int, folder: Path) -> bool:
    """Whether a process's arguments or environment do. Read raw: Slurm's steps write their title over both."""
    try:
        words = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    except OSError:
        return False
    return any(bytes(folder) in each for each in words)


def end_cluster(folder: Path) -> None:
    """Kill every process of the cluster until there is none, and remove its folder."""

    def nothing_left() -> bool:
        left = alive(processes_of(folder))
        for process in left:
            process.kill()
        return not left

    eventually(nothing_left, "every process of the cluster has ended", 60)
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.stdin.read()
    end_cluster(Path(sys.argv[1]))
