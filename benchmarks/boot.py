#!/usr/bin/env python3
"""Seconds from process start to the first streamed token of ``slipway-serve``, through HTTP.

    .venv/bin/python benchmarks/boot.py [--rounds N] [--cache FOLDER] [--threads N]

Two models: the starter, and a Llama of 246 million random parameters in bfloat16, made once in the cache folder. The
models take turns. The weights are in the page cache, as they are on any start but the first after a download. Writes
benchmarks/results/boot.json and boot.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llama_246m import make_llama

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Round:
    """One start. Seconds since the process was spawned; ``phases`` is the engine's own account of its part.

    ``cpu`` is the processor time of both processes from spawn to end: what a busy machine does not change much.
    """

    model: str
    ready: float
    first_token: float
    cpu: float
    phases: dict[str, float]


def start_once(name: str, model: Path, options: list[str]) -> Round:
    """Start the server, stream one token, stop it."""
    argv = [sys.executable, "-m", "serving_image.cli", str(model), "--port", "0", "--log-format", "json"]
    argv += ["--served-model-name", name, *options]
    started, cpu = time.perf_counter(), cpu_of_children()
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        url, phases = wait_ready(process)
        ready = time.perf_counter() - started
        stream_first_token(url, name)
        first_token = time.perf_counter() - started
    finally:
        process.terminate()
        process.communicate()
    return Round(name, round(ready, 3), round(first_token, 3), round(cpu_of_children() - cpu, 3), phases)


def cpu_of_children() -> float:
    """Processor seconds of all processes that this one has waited for, and those that they have waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wait_ready(process: subprocess.Popen[str]) -> tuple[str, dict[str, float]]:
    """The server's URL and its engine's boot phases."""
    phases: dict[str, float] = {}
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("ready "):
            return line.split()[1], phases
        if line.startswith("{") and (record := json.loads(line))["event"] == "engine ready":
            phases = {phase["name"]: round(phase["seconds"], 3) for phase in record["boot"]}
    raise SystemExit("slipway-serve did not start:\n" + "".join(lines))


def stream_first_token(url: str, model: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    body = {"model": model, "prompt": "Slipway", "max_tokens": 8, "stream": True, "temperature": 0, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    line = connection.getresponse().readline()
    connection.close()
    assert line.startswith(b'data: {"id"'), line


def table(rounds: list[Round]) -> str:
    """Minimum, median and maximum per model, then the medians of the engine's phases."""
    lines = ["| model | rounds | ready: median s | first token: min | median | max | CPU: median |", "|---" * 7 + "|"]
    names = list(dict.fromkeys(r.model for r in rounds))
    for name in names:
        mine = [r for r in rounds if r.model == name]
        first = [r.first_token for r in mine]
        middle = statistics.median
        figures = (middle(r.ready for r in mine), min(first), middle(first), max(first), middle(r.cpu for r in mine))
        lines.append(f"| {name} | {len(mine)} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    lines += ["", "Where the engine's time goes (medians, seconds):", "", "| phase | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for phase in dict.fromkeys(phase for r in rounds for phase in r.phases):
        cells = [statistics.median(r.phases.get(phase, 0.0) for r in rounds if r.model == name) for name in names]
        lines.append(f"| {phase} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def machine() -> dict[str, object]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "load_average_at_start": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "slipway-benchmarks")
    parser.add_argument("--threads", type=int, help="passed on to slipway-serve")
    arguments = parser.parse_args()
    about = machine()
    options = [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    models = {"starter": ROOT / "starter" / "model", "llama-246m": make_llama(arguments.cache / "llama-246m")}
    for name, model in models.items():  # once unmeasured: byte code and page cache
        start_once(name, model, options)
    rounds = [start_once(name, model, options) for _ in range(arguments.rounds) for name, model in models.items()]
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": about, "rounds": [asdict(r) for r in rounds]}
    (RESULTS / "boot.json").write_text(json.dumps(result, indent=2) + "\n")
    text = f"Seconds from process start. {about['cores']} cores ({about['cpu']}), page cache warm, load average "
    text += f"{about['load_average_at_start']:.1f} before the first start.\n\n{table(rounds)}"
    (RESULTS / "boot.md").write_text("# Boot: process start to first streamed token\n\n" + text)
    print(text)


if __name__ == "__main__":
    main()
