#!/usr/bin/env python3
"""Downloads of a model, side by side: Slipway's transfer, huggingface_hub's snapshot_download, and curl.

    .venv/bin/python benchmarks/download.py [--rounds N] [--megabytes N] [--folder FOLDER]

All fetch the same two models from the test hub on loopback: one large file, and the same bytes in eight shards. The
tools take turns, each in a process of its own with an empty cache; imports are not counted. Slipway's time includes
the SHA-256 of every file and the sync to disk; the others do neither. Writes benchmarks/results/download.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from control_plane.downloads.remote import Repository
from control_plane.downloads.selection import select_files
from control_plane.downloads.transfer import Transfer, TransferOptions
from control_plane.hub.client import HubClient
from control_plane.hub.ids import ModelId

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MODELS = {"one file": "bench/one", "eight shards": "bench/shards"}
TOOLS = ("slipway", "huggingface_hub", "curl")


def make_model(folder: Path, size: int, files: int) -> None:
    """Random bytes under the names of weights: nobody loads them here."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for number in range(files):
        with (folder / f"model-{number + 1:05d}-of-{files:05d}.safetensors").open("wb") as file:
            for start in range(0, size, 1 << 24):
                file.write(os.urandom(min(1 << 24, size - start)))


@contextmanager
def running_hub(folders: list[str]) -> Iterator[str]:
    """The test hub in a process of its own; yields its URL."""
    argv = [sys.executable, "-m", "tests.hub", "--port", "0", *folders]
    hub = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert hub.stdout is not None
        yield next(line.partition("=")[2].strip() for line in hub.stdout if line.startswith("export HF_ENDPOINT="))
    finally:
        hub.terminate()
        hub.wait(10)


def fetch_with_slipway(url: str, model: str, cache: Path) -> float:
    """Seconds from the listing to the linked snapshot."""
    began = time.perf_counter()
    found = HubClient(url).model(ModelId.parse(model), "main")
    repository = Repository(url, model, found.sha)
    asyncio.run(Transfer(repository, select_files(found.files), cache, TransferOptions()).run())
    return time.perf_counter() - began


def fetch_with_huggingface_hub(url: str, model: str, cache: Path) -> float:
    """Seconds of ``snapshot_download`` with its own defaults."""
    began = time.perf_counter()
    snapshot_download(model, endpoint=url, cache_dir=cache, token=False)
    return time.perf_counter() - began


def fetch_with_curl(url: str, model: str, cache: Path) -> float:
    """Seconds of one curl for all weights, eight transfers at a time; no cache layout, no checksum."""
    names = [f.rfilename for f in HfApi(endpoint=url, token=False).model_info(model).siblings or []]
    argv = ["curl", "--silent", "--show-error", "--fail", "--location", "--parallel", "--parallel-max", "8"]
    for name in names:
        argv += ["--output", str(cache / name), f"{url}/{model}/resolve/main/{name}"]
    began = time.perf_counter()
    subprocess.run(argv, check=True)
    return time.perf_counter() - began


def measure(tool: str, url: str, model: str, folder: Path) -> float:
    """One download in a fresh process into an empty cache; seconds."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        argv = [sys.executable, __file__, "--one", tool, url, model, cache]
        environment = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment)
        return float(done.stdout.split()[-1])


def table(seconds: dict[str, dict[str, list[float]]], megabytes: int, load: list[float]) -> str:
    """Medians and their ratios as Markdown."""
    lines = [
        f"Seconds to download {megabytes} MB from a hub on loopback: median (least–most) of "
        f"{len(seconds['one file']['slipway'])} rounds; ratio of medians to Slipway's.",
        "",
        "| model | tool | seconds | MB/s | ratio |",
        "|---|---|---|---|---|",
    ]
    for shape, tool in product(MODELS, TOOLS):
        values = seconds[shape][tool]
        median = statistics.median(values)
        ratio = median / statistics.median(seconds[shape]["slipway"])
        spread = f"{median:.2f} ({min(values):.2f}–{max(values):.2f})"
        lines.append(f"| {shape} | {tool} | {spread} | {megabytes / median:.0f} | {ratio:.2f} |")
    lines += ["", "Slipway verifies SHA-256 and syncs to disk; the other two do neither."]
    return "\n".join([*lines, f"Load average of the machine before and after: {load[0]:.1f}, {load[1]:.1f}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="where models and caches are put; the default is temporary")
    parser.add_argument("--one", nargs=4, metavar=("TOOL", "URL", "MODEL", "CACHE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        tool, url, model, cache = options.one
        fetch = {"slipway": fetch_with_slipway, "huggingface_hub": fetch_with_huggingface_hub, "curl": fetch_with_curl}
        print(fetch[tool](url, model, Path(cache)))
        return
    if not shutil.which("curl"):
        parser.error("curl is not installed")
    load = [os.getloadavg()[0]]
    seconds: dict[str, dict[str, list[float]]] = {shape: {tool: [] for tool in TOOLS} for shape in MODELS}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        size = options.megabytes * 1_000_000
        for model, files in (("bench/one", 1), ("bench/shards", 8)):
            make_model(folder / model, size // files, files)
        with running_hub([f"{model}={folder / model}" for model in MODELS.values()]) as url:
            for number, (shape, tool) in product(range(options.rounds), product(MODELS, TOOLS)):
                seconds[shape][tool].append(measure(tool, url, MODELS[shape], folder))
                print(f"round {number + 1}: {shape}, {tool}: {seconds[shape][tool][-1]:.2f} s", flush=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    load.append(os.getloadavg()[0])
    result = {"megabytes": options.megabytes, "seconds": seconds, "machine": machine, "load_average": load}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "download.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "download.md").write_text(table(seconds, options.megabytes, load))
    print("\n" + table(seconds, options.megabytes, load))


if __name__ == "__main__":
    main()
