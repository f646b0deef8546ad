"""``python -m benchmarks.gpu [part …]``: what ``run.sh`` runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import page
from benchmarks.gpu.results import Results, updating
from benchmarks.gpu.tasks import PARTS, TASKS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
_PACKAGES = ("torch", "triton", "transformers", "flashinfer-python")

RunTask = Callable[[str, Path], str]
"""Runs a task of :data:`TASKS` on a file of results; what went wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, write JSON and table; 1 if any failed, 2 without a GPU."""
    arguments = _arguments(argv)
    if arguments.task:
        TASKS[arguments.task].run(arguments.results)
        return 0
    about = describe()
    if about is None:
        print("benchmarks/gpu/run.sh needs a CUDA GPU that torch sees: there is none here", file=sys.stderr)
        return 2
    everything = not arguments.parts or "all" in arguments.parts
    chosen = [part for part in PARTS if everything or part in arguments.parts]
    folder = arguments.output or Path(os.environ.get("OUT") or RESULTS)
    path = folder / file_name(about)
    failed = run(chosen, path, about, run_task)
    print(path.with_suffix(".md").read_text())
    return 1 if failed else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/run.sh", description=__doc__)
    names = ", ".join(PARTS)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of {names}, all; they run in this order")
    parser.add_argument("--output", type=Path, help="folder of the results; else $OUT, else benchmarks/results/gpu")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    unknown = set(arguments.parts) - {*PARTS, "all"}
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {names} and all")
    return arguments


def describe() -> dict[str, Any] | None:
    """The GPU, the date and the versions; None without a GPU."""
    import torch  # noqa: PLC0415 - --help need not wait for it

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "date": time.strftime("%Y-%m-%d"),
        "multiprocessors": properties.multi_processor_count,
        "memory": f"{properties.total_memory / 2**30:.0f} GiB",
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions(), f"CUDA {torch.version.cuda}"]),
    }


def _versions() -> list[str]:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {package}")
    return found


def file_name(about: dict[str, Any]) -> str:
    """``<date>-<device>.json``, in lower case and without spaces."""
    return f"{about['date']}-{re.sub(r'[^a-z0-9]+', '-', about['device'].lower()).strip('-')}.json"


def run(parts: Sequence[str], path: Path, about: dict[str, Any], run_task: RunTask) -> bool:
    """Every task of these parts; whether any failed. The page is written anew after each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Results(about).write(path)
    for task in (task for part in parts for task in PARTS[part]):
        started = time.monotonic()
        error = run_task(task, path)
        with updating(path) as results:
            results.parts[task] = error
        print(f"{task}: {error or 'done'}, {time.monotonic() - started:.0f} s", flush=True)
        path.with_suffix(".md").write_text(page(Results.read(path)))
    return any(Results.read(path).parts.values())


def run_task(task: str, path: Path) -> str:
    """In a process of its own, which is ended with all its children when its time is up."""
    argv = [sys.executable, "-m", "benchmarks.gpu", "--task", task, "--results", str(path)]
    process = subprocess.Popen(argv, cwd=ROOT, start_new_session=True)
    try:
        status = process.wait(TASKS[task].limit)
    except subprocess.TimeoutExpired:
        return f"not done after {TASKS[task].limit:.0f} s"
    finally:
        _end(process)
    return f"exit status {status}" if status else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Its whole session: a pool of compilers outlives a parent that is killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
