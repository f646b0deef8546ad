"""What is demanded of the machine code."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.compiled.rows import Row
from kernels.gpu.compile_only import SHARED_MEMORY


def complaints(row: Row) -> Iterator[str]:
    """What is wrong with a kernel; nothing if all is well."""
    code = row.code
    if code.hot_spills:
        yield f"{code.hot_spills} accesses to local memory in loops"
    if row.shared > SHARED_MEMORY[row.key.capability]:
        yield f"{row.shared} bytes of shared memory"
