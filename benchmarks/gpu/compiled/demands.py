"""What is demanded of the machine code."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.compiled.rows import Row
from kernels.gpu.compile_only import SHARED_MEMORY

_NARROW = 8
"""One byte in so many may be loaded by less than 16 at a time."""
MATRIX = {80: "mma", 90: "wgmma", 100: "tcgen05"}


def complaints(row: Row) -> Iterator[str]:
    """What is wrong with a kernel; nothing if all is well."""
    code = row.code
    if code.hot_spills:
        yield f"{code.hot_spills} accesses to local memory in loops"
    wide = 16 * code.loads.get("16", 0)
    if 32 * row.num_warps * wide < row.streamed and "bulk" not in code.loads:
        yield f"{32 * row.num_warps * wide} of {row.streamed} bytes are loaded by 16 at a time"
    # Page numbers are loaded by 4 bytes, scales too; a tile's narrow side can be too small for 16 bytes per thread.
    odd = {width: count for width, count in code.loads.items() if width in {"1", "2", "8"}}
    if row.streamed and wide < _NARROW * sum(int(width) * count for width, count in odd.items()):
        yield f"loads in loops by their bytes: {code.loads}"
    if row.needs_matrix and MATRIX[row.key.capability] not in code.matrix:
        yield f"matrix instructions: {', '.join(code.matrix) or 'none'}"
    if row.shared > SHARED_MEMORY[row.key.capability]:
        yield f"{row.shared} bytes of shared memory"
