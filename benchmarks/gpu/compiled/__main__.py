"""``python -m benchmarks.gpu.compiled [operation …]``; see the package."""

from __future__ import annotations

import argparse
import os
import sys
import time

from benchmarks.gpu.compiled import table
from benchmarks.gpu.compiled.demands import complaints
from benchmarks.gpu.compiled.rows import CAPABILITIES, all_work, compile_all


def main() -> int:
    """Compile, print what is wrong, and write the table if all operations were compiled; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operations", nargs="*", help="print the rows of these only; the table is not written")
    parser.add_argument("--capability", type=int, action="append", choices=CAPABILITIES, help="for these only")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows, failures = compile_all(
        all_work(arguments.operations, arguments.capability or CAPABILITIES), arguments.workers
    )
    if arguments.operations or arguments.capability:
        print("\n".join(table.line(row) for row in rows))
    else:
        table.PATH.write_text(table.page(rows))
    for failure in failures:
        print("failed:", *failure, file=sys.stderr)
    wrong = [f"{' '.join(map(str, row.key))}: {complaint}" for row in rows for complaint in complaints(row)]
    print("\n".join(wrong), file=sys.stderr)
    print(f"{len(rows)} kernels in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return 1 if failures or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
