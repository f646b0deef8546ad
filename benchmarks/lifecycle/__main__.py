"""Thousands of random histories of the lifecycle, other ones each time; counts them and writes the result.

    .venv/bin/python -m benchmarks.lifecycle [--schedules N] [--jobs N]

What a history is, what may happen in it and what has to hold is in
``tests/control_plane/instances/test_state_machine.py``. One that ends badly is made short and printed, and nothing is
written. Writes benchmarks/results/lifecycle.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.lifecycle.histories import Share, run_all
from tests.control_plane.instances.test_state_machine import RULES_PER_SCHEDULE

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "lifecycle.md"
#: What histories have found so far; kept by hand.
FOUND = Path(__file__).with_name("found.md")


def report(total: Share, seconds: float, jobs: int) -> str:
    """The page of results."""
    rows = "\n".join(f"| {what} | {count} |" for what, count in sorted(total.executed.items()))
    return (
        "# Random histories of the lifecycle\n\n"
        f"{total.histories} histories of up to {RULES_PER_SCHEDULE} rules, {total.executed.total()} rules in all, in "
        f"{seconds:.0f} s on {jobs} processes ({total.cpu_s:.0f} s of processor time; {os.cpu_count()} cores; load at "
        f"the end {os.getloadavg()[0]:.1f}). Each ended with the provider's list equal to the live rows, no boot begun "
        "twice, no phase stuck, no engine that was well ended without a reason, and no wrong bill.\n\n"
        "    make test-lifecycle\n\n"
        f"{FOUND.read_text()}\n"
        "## What happened in them\n\n| rule | times |\n|---|---|\n"
        f"{rows}\n"
    )


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lifecycle")
    parser.add_argument("--schedules", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    total, seconds = run_all(options.schedules, options.jobs)
    RESULT.write_text(report(total, seconds, options.jobs))
    print(f"{total.histories} histories, {total.executed.total()} rules, {seconds:.0f} s: all ended well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
