"""``python -m benchmarks.gpu.tune [operation …]``; see the package."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
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
    ends = time.monotonic() + 60 * arguments.minutes
    device = device_of(torch.empty(1, device="cuda"))
    wanted = [work for work in workloads() if not arguments.operations or work.operation in arguments.operations]
    found_shapes: dict[Entry, Found] = {}
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 16), mp_context=get_context("spawn")) as pool:
        for entry, works in used_entries(wanted, device, pool).items():
            if time.monotonic() > ends:
                print("no time is left", flush=True)
                break
            trial = Trial(entry, works, device, CudaTimer(seconds=0.1), pool, lambda line: print(line, flush=True))
            try:
                found = descend(tile_shape(*entry, device), trial.costs, goes_on=lambda: time.monotonic() < ends)
            except ValueError as error:
                print(f"{' '.join(entry)}: {error}", flush=True)
                continue
            found_shapes[entry] = found
            print(_line(entry, found, len(works)), flush=True)
            _write(arguments.output, found_shapes, device.capability)
    if not arguments.output:
        adopt({entry: found.shape for entry, found in found_shapes.items()}, device.capability)
    return 0


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


def _write(path: Path | None, found: dict[Entry, Found], capability: int) -> None:
    if path:
        entries = [
            {"entry": entry, "shape": dict(each.shape), "before": each.before, "after": each.cost}
            for entry, each in found.items()
        ]
        path.write_text(json.dumps({"capability": capability, "entries": entries}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
