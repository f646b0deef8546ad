"""Launches and terminations at once, in rounds, while web servers, workers and schedulers are killed; then the books.

    .venv/bin/python -m benchmarks.control_plane.proof [--count 50] [--rounds 3] [--kill-every 1] [--provider slurm …]

Real processes: two web servers, two workers, two schedulers, PostgreSQL, Redis, a model hub; the local host, or a Slurm
cluster of two nodes behind slurmrestd (which needs root). Engines are a stand-in of a few megabytes, so that so many
fit. Each round launches ``--count`` instances and terminates those of the round before; a last one terminates only.
Exits 1 if an instance is stuck, lost, made twice, billed on, or left at its provider.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.control_plane import results
from control_plane.providers.base import Provider
from control_plane.providers.registry import make_providers
from control_plane.settings import Settings
from tests.hub import models
from tests.hub.server import HubServer
from tests.support.chaos import Chaos, Report, check_books
from tests.support.fleet import fresh_database, running_fleet
from tests.support.local_host import running_local_host
from tests.support.postgres import running_postgres
from tests.support.redis import running_redis
from tests.support.slurm import running_slurm
from tests.support.slurm_site import SlurmSite

MODEL = "org/tiny"
HARDWARE = {"local": "local-cpu", "slurm": "slurm-cpu"}
_FLEET = {"webs": 2, "workers": 2, "schedulers": 2}


@contextmanager
def place(provider: str, **common: Any) -> Iterator[Settings]:
    """What ``provider`` stands on, running; yields the settings of a control plane that uses it."""
    if provider == "local":
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(data_dir=Path(folder) / "data", local_price_per_hour=3.6, **common)
            with running_local_host(settings):
                yield settings
    else:
        with running_slurm(cpus_per_node=64) as cluster:
            site = SlurmSite(cluster)
            slurm = site.settings.model_dump(include={name for name in Settings.model_fields if "slurm" in name})
            try:
                yield Settings(data_dir=site.folder / "control-plane", providers=["slurm"], **slurm, **common)
            finally:
                site.clear()


def prove(provider: str, count: int, rounds: int, kill_every_s: float) -> tuple[Report, float]:
    """All rounds on ``provider``; the report and the seconds that it took.

    :raises AssertionError: the books are not in order.
    :raises TimeoutError: an instance is stuck.
    """
    with ExitStack() as stack:
        hub = stack.enter_context(HubServer())
        hub.add_repo(MODEL, models.tiny_llama(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "tiny"))
        database_url = stack.enter_context(fresh_database(stack.enter_context(running_postgres())))
        broker_url = stack.enter_context(running_redis())
        settings = stack.enter_context(place(provider, database_url=database_url, broker_url=broker_url))
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(settings.data_dir / "models")}
        fleet = stack.enter_context(running_fleet(settings, **_FLEET, environment=environment))
        began = time.monotonic()
        report = Chaos(fleet, count, {"model": MODEL, "hardware": HARDWARE[provider]}, kill_every_s).run(rounds)
        there: Provider = make_providers(settings)[provider]
        check_books(fleet, there, count * rounds)
        return report, time.monotonic() - began


def table(reports: dict[str, tuple[Report, float]]) -> str:
    """As Markdown."""
    lines = ["| provider | round | launched | terminated | seconds |", "|---|---|---|---|---|"]
    for provider, (report, _) in reports.items():
        lines += [
            f"| {provider} | {number} | {one.launched} | {one.terminated} | {one.seconds:.0f} |"
            for number, one in enumerate(report.rounds, 1)
        ]
    verdict = "nothing of ours was at the provider, every launch had run exactly once, and nothing was billed any more"
    for provider, (report, seconds) in reports.items():
        kills = ", ".join(f"{role} {count}" for role, count in sorted(report.kills.items()))
        total = sum(report.kills.values())
        lines += ["", f"{provider}: {total} SIGKILLs ({kills}) in {seconds:.0f} s. Afterwards {verdict}."]
    return "\n".join(lines)


def main() -> None:
    """Prove, write the results, and exit 1 if something is amiss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="instances of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kill-every", type=float, default=1.0, help="mean seconds between kills (default: 1)")
    parser.add_argument("--provider", action="append", choices=list(HARDWARE), help="default: both")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    reports = {}
    for provider in options.provider or HARDWARE:
        try:
            reports[provider] = prove(provider, options.count, options.rounds, options.kill_every)
        except (AssertionError, TimeoutError) as error:
            sys.exit(f"{provider}: {error}")
    measured = {
        provider: {"rounds": [one._asdict() for one in report.rounds], "kills": report.kills, "seconds": seconds}
        for provider, (report, seconds) in reports.items()
    }
    results.write("proof", {"options": vars(options)} | measured, table(reports), load_before)


if __name__ == "__main__":
    main()
