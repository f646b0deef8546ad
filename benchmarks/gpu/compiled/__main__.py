"""``python -m benchmarks.gpu.compiled [operation …]``; see the package."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks.gpu.compiled import table
from benchmarks.gpu.compiled.demands import complaints
from benchmarks.gpu.compiled.rows import CAPABILITIES, Compiled, all_work, compile_all, sample


def main() -> int:
    """Compile, say what is wrong, and write the table if everything was compiled; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operations", nargs="*", help="print the rows of these; the table is not written")
    parser.add_argument("--capability", type=int, action="append", choices=CAPABILITIES, help="the same, for these")
    parser.add_argument("--sample", action="store_true", help="compile what the tests compile; with --json")
    parser.add_argument("--json", type=Path, help="write the rows there; the table is not written")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    started = time.perf_counter()
    works = sample() if arguments.sample else all_work(arguments.operations, arguments.capability or CAPABILITIES)
    found = compile_all(works, arguments.workers)
    if arguments.json:
        found.write(arguments.json)
    elif arguments.operations or arguments.capability:
        print("\n".join(table.line(row) for row in found.rows))
    else:
        table.PATH.write_text(table.page(found.rows))
    wrong = report(found)
    print(f"{len(found.rows)} kernels in {time.perf_counter() - started:.0f} s, {wrong} complaints", file=sys.stderr)
    return 1 if wrong else 0


def report(found: Compiled) -> int:
    """Print what is wrong; how many things there are."""
    lines = [f"{' '.join(map(str, failure[:3]))}: {failure.error}" for failure in found.failures]
    lines += [f"{' '.join(map(str, row.key))}: {complaint}" for row in found.rows for complaint in complaints(row)]
    for line in lines:
        print(line, file=sys.stderr)
    return len(lines)


if __name__ == "__main__":
    sys.exit(main())
