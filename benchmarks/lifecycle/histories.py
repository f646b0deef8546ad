"""Histories by the hundred, on several processes."""

from __future__ import annotations

import logging
import multiprocessing
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from control_plane.migrate import upgrade
from tests.control_plane.instances.test_state_machine import Histories, run

#: Histories of one call: small enough that a count is printed from time to time.
_SHARE = 100


class Share(NamedTuple):
    """What one call did; ``cpu_s`` is of its process."""

    histories: int
    executed: Counter[str]
    cpu_s: float


def run_share(template: Path, schedules: int) -> Share:
    """So many histories, in a process of their own."""
    logging.disable(logging.CRITICAL)  # engines crash here by the thousand, and say so
    before, cpu_s = (Histories.histories, Counter(Histories.executed)), time.process_time()
    run(template, schedules, derandomize=False)
    return Share(Histories.histories - before[0], Histories.executed - before[1], time.process_time() - cpu_s)


def run_all(schedules: int, jobs: int) -> tuple[Share, float]:
    """At least ``schedules`` histories on ``jobs`` processes; their sum, and the seconds that it took."""
    began, total = time.monotonic(), Share(0, Counter(), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.db"
        upgrade(f"sqlite:///{template}")
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            calls = [pool.submit(run_share, template, _SHARE) for _ in range(-(-schedules // _SHARE))]
            try:
                for call in as_completed(calls):
                    total = _sum(total, call.result())
                    print(f"{total.histories} histories, {total.executed.total()} rules", flush=True)
            finally:
                pool.shutdown(cancel_futures=True)
    return total, time.monotonic() - began


def _sum(one: Share, other: Share) -> Share:
    return Share(one.histories + other.histories, one.executed + other.executed, one.cpu_s + other.cpu_s)
