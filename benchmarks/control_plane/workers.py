"""What more workers bring: how many launches a second come from POST to ``running``, with 1, 2, 4 and 6 of them.

    .venv/bin/python -m benchmarks.control_plane.workers [--launches 200] [--workers 1 2 4 6] [--answer-seconds 0.5 0]

A closed burst: all launches are sent as fast as one web server takes them, and the clock stops when the last is
``running``. Measured with a provider whose every call takes a while, as a cloud's do: there workers mostly wait, and
more of them wait for more at once. And with one that answers at once: there processors are the limit. Everything shares
one machine, so the table says who used them.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from itertools import product
from typing import Any

from benchmarks.control_plane import load, results
from benchmarks.control_plane.site import cpu_seconds, running_site

_ROLES = ("web", "worker", "scheduler", "PostgreSQL", "Redis", "imaginary place", "load generator")


def measure(workers: int, launches: int, load_seconds: float, answer_seconds: float) -> dict[str, Any]:
    """One burst: launches a second, seconds of single launches, and processor seconds by role."""
    with running_site(workers, load_seconds, answer_seconds) as fleet:
        load.warm_up(fleet)
        before, began = cpu_seconds(fleet), time.monotonic()
        launched = load.launch_at_once(fleet, launches)
        accepted_s = time.monotonic() - began
        load.wait_until(fleet, "running", load.WARM_UP + launches)
        spent, took_s = cpu_seconds(fleet), time.monotonic() - began
        times = load.times(fleet, "running", launched)
    first, last = min(made for made, _ in times), max(at for _, at in times)
    waits = [(at - made).total_seconds() for made, at in times]
    return {
        "answer_seconds": answer_seconds,
        "workers": workers,
        "per_second": launches / (last - first).total_seconds(),
        "accepted_per_second": launches / accepted_s,
        "p50_s": load.percentile(waits, 0.5),
        "p99_s": load.percentile(waits, 0.99),
        "seconds": took_s,
        "cpu_s": {role: round(value - before[role], 2) for role, value in Counter(spent).items()},
    }


def table(runs: list[dict[str, Any]], launches: int, load_seconds: float) -> str:
    """The curve as Markdown."""
    cpus = os.cpu_count() or 1
    lines = [
        f"{launches} launches sent as fast as one web server took them, until the last was `running`; an imaginary "
        f"engine is ready after {load_seconds:g} s. {load.WARM_UP} launches before them "
        "warmed it up. Processor time is that of one launch, in ms.",
        "",
        "| a call takes, s | workers | launches/s | accepted/s | p50 s | p99 s "
        f"| CPUs in use, of {cpus} | {' | '.join(_ROLES)} |",
        "|---" * (7 + len(_ROLES)) + "|",
    ]
    for run in runs:
        costs = " | ".join(f"{run['cpu_s'].get(role, 0.0) / launches * 1e3:.1f}" for role in _ROLES)
        busy = sum(run["cpu_s"].values()) / run["seconds"]
        lines.append(
            f"| {run['answer_seconds']:g} | {run['workers']} | {run['per_second']:.1f} "
            f"| {run['accepted_per_second']:.1f} | {run['p50_s']:.1f} | {run['p99_s']:.1f} | {busy:.2f} | {costs} |"
        )
    return "\n".join([*lines, "", _what_limits(runs, launches, cpus)])


def _what_limits(runs: list[dict[str, Any]], launches: int, cpus: int) -> str:
    best = max(runs, key=lambda run: run["per_second"])
    cost_s = sum(best["cpu_s"].values()) / launches
    share = best["cpu_s"].get("worker", 0.0) / sum(best["cpu_s"].values())
    return (
        f"Most, {best['per_second']:.1f} launches/s, came with {best['workers']} workers. A launch cost "
        f"{cost_s * 1e3:.0f} ms of processor time there ({share:.0%} of it in workers), so that {cpus} CPUs that do "
        f"nothing else could do {cpus / cost_s:.1f} a second: where CPUs in use are near {cpus}, the machine is the "
        "limit and not the number of workers."
    )


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 6])
    parser.add_argument("--load-seconds", type=float, default=2.0, help="until an imaginary engine is ready")
    parser.add_argument("--answer-seconds", type=float, nargs="+", default=[0.5, 0.0], help="that provider calls take")
    options = parser.parse_args()
    load_before, runs = os.getloadavg()[0], []
    for answer_seconds, workers in product(options.answer_seconds, options.workers):
        runs.append(measure(workers, options.launches, options.load_seconds, answer_seconds))
        measured = {"options": vars(options), "runs": runs}
        results.write("workers", measured, table(runs, options.launches, options.load_seconds), load_before)


if __name__ == "__main__":
    main()
