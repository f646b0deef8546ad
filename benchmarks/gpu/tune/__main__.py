"""``python -m benchmarks.gpu.tune [operation …]``; see the package."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

import benchmarks.gpu.tune
from benchmarks.gpu.timing import CudaTimer
from benchmarks.gpu.tune.search import Found, descend
from benchmarks.gpu.tune.tables import adopt
from benchmarks.gpu.tune.trial import Trial, used_entries
from benchmarks.gpu.tune.workloads import workloads
from kernels.gpu import device_of, tile_shape
from kernels.gpu.tiles import Entry


def main() -> int:
    """Tune until all entries or all time is used; 2 without a GPU."""
    arguments = _arguments()
    if arguments.adopt:
        found = json.loads(arguments.adopt.read_text())
        adopt({tuple(each["entry"]): each["shape"] for each in found["entries"]}, found["capability"])
        return 0
    if not torch.cuda.is_available():
        print("the tuner needs a GPU: torch sees none", file=sys.stderr)
        return 2
    tune(arguments.operations, arguments.minutes, arguments.output)
    return 0


def tune(operations: Sequence[str], minutes: float, output: Path | None) -> None:
    """Tune these operations, or all.

    :param output: where to write what is found instead of into the tables.
    """
    ends = time.monotonic() + 60 * minutes
    device = device_of(torch.empty(1, device="cuda"))
    wanted = [work for work in workloads() if not operations or work.operation in operations]
    found: dict[Entry, Found] = {}
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 16), mp_context=get_context("spawn")) as pool:
        for entry, works in used_entries(wanted, device, pool).items():
            if time.monotonic() > ends:
                print("no time is left", flush=True)
                break
            trial = Trial(entry, works, device, CudaTimer(seconds=0.1), pool, lambda line: print(line, flush=True))
            try:
                best = descend(tile_shape(*entry, device), trial.costs, goes_on=lambda: time.monotonic() < ends)
            except ValueError as error:
                print(f"{' '.join(entry)}: {error}", flush=True)
                continue
            found[entry] = best
            print(_line(entry, best, len(works)), flush=True)
            if output:
                _write(output, found, device.capability)
            else:
                adopt({entry: best.shape}, device.capability)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=benchmarks.gpu.tune.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("operations", nargs="*", help="tune these only")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--output", type=Path, help="write what is found there instead of into the tables")
    parser.add_argument("--adopt", type=Path, help="put such a file's shapes into the tables, without a GPU, and end")
    return parser.parse_args()


def _line(entry: Entry, found: Found, works: int) -> str:
    gain = math.exp((found.before - found.cost) / works)
    return f"{' '.join(entry)}: {dict(found.shape)}, {gain:.3f} × as fast, {found.tried} tried"


def _write(path: Path, found: dict[Entry, Found], capability: int) -> None:
    entries = [
        {"entry": entry, "shape": dict(each.shape), "before": each.before, "after": each.cost}
        for entry, each in found.items()
    ]
    path.write_text(json.dumps({"capability": capability, "entries": entries}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
