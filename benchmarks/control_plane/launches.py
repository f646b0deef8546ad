"""Launches at a steady rate through the API: how long each waits until its first step is done.

    .venv/bin/python -m benchmarks.control_plane.launches [--per-second 20] [--seconds 30] [--workers 4]

Real web server, workers, scheduler, PostgreSQL and Redis; the provider is the imaginary place behind HTTP. Launches
are sent on schedule, whatever became of those before, each with an idempotency key. The measured time is the one that
the rows tell: from ``created_at`` to the audit event. Target: 99 of 100 reach ``provisioning`` within 2 s, while rows
are made at the rate that was asked for.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter

from benchmarks.control_plane import load, results
from benchmarks.control_plane.site import cpu_seconds, running_site
from tests.support.fleet import Fleet

TARGET_S = 2.0
#: The share of the asked rate at which the server counts as keeping up.
_KEPT_UP = 0.95
_PHASES = ("provisioning", "running")
_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}


def measure(per_second: float, seconds: float, workers: int, load_seconds: float) -> dict[str, object]:
    """One run; seconds of each wait, and of processor time by role."""
    with running_site(workers, load_seconds) as fleet:
        load.warm_up(fleet)
        before, began = cpu_seconds(fleet), time.monotonic()
        sent = load.launch_steadily(fleet, per_second, seconds)
        load.wait_until(fleet, "provisioning", load.WARM_UP + len(sent))
        spent, took = cpu_seconds(fleet), time.monotonic() - began
        load.wait_until(fleet, "running", load.WARM_UP + len(sent))
        accepted = _accepted_per_second(fleet, sent)
        waits = {phase: load.waits_s(fleet, phase, [one.instance_id for one in sent]) for phase in _PHASES}
    waits["answer to POST, from when it was due"] = [one.answered_s for one in sent]
    waits["sent late, by the load generator"] = [one.late_s for one in sent]
    return {
        "launches": len(sent),
        "accepted_per_second": round(accepted, 2),
        "seconds": took,
        "waits_s": {what: _percentiles(values) for what, values in waits.items()},
        "cpu_s": {role: round(value - before[role], 2) for role, value in Counter(spent).most_common()},
    }


def _accepted_per_second(fleet: Fleet, sent: list[load.Sent]) -> float:
    """The rate at which rows were made."""
    made = [made for made, _ in load.times(fleet, "provisioning", [one.instance_id for one in sent])]
    return (len(made) - 1) / (max(made) - min(made)).total_seconds()


def _percentiles(values: list[float]) -> dict[str, float]:
    return {name: round(load.percentile(values, share), 3) for name, share in _SHARES.items()}


def table(measured: dict[str, dict[str, dict[str, float]]], head: str, foot: str) -> str:
    """The waits as Markdown, and who used the processors."""
    lines = [head, "", f"| seconds | {' | '.join(_SHARES)} |", "|---" * (1 + len(_SHARES)) + "|"]
    for what, values in measured["waits_s"].items():
        name = f"`created_at` → `{what}`" if what in _PHASES else what
        lines.append(f"| {name} | {' | '.join(f'{values[share]:.2f}' for share in _SHARES)} |")
    return "\n".join([*lines, "", foot])


def main() -> None:
    """Measure, write the results, and exit 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-second", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--load-seconds", type=float, default=2.0, help="until an imaginary engine is ready")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    measured = measure(**vars(options))
    p99 = measured["waits_s"]["provisioning"]["p99"]
    # A server that keeps launches waiting at its door would make the rest look fast.
    is_met = p99 <= TARGET_S and measured["accepted_per_second"] >= _KEPT_UP * options.per_second
    total = sum(measured["cpu_s"].values())
    shares = ", ".join(f"{role} {value / total:.0%}" for role, value in measured["cpu_s"].items())
    head = (
        f"{options.per_second:g} launches a second for {options.seconds:g} s, {options.workers} workers, one web "
        f"server: {measured['launches']} launches, after {load.WARM_UP} to warm up; "
        f"{measured['accepted_per_second']:.1f} a second were accepted. Target, p99 to `provisioning` ≤ {TARGET_S:g} s "
        f"at this rate: {'met' if is_met else 'missed'} ({p99:.2f} s)."
    )
    foot = (
        f"Processor time until the last was `provisioning`: {total:.0f} s in {measured['seconds']:.0f} s, on "
        f"{os.cpu_count()} CPUs: {shares}. An imaginary engine is ready after {options.load_seconds:g} s."
    )
    results.write("launches", {"options": vars(options)} | measured, table(measured, head, foot), load_before)
    raise SystemExit(not is_met)


if __name__ == "__main__":
    main()
