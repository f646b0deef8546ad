"""The table as Markdown, in an order that does not depend on anything but the cases."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from pathlib import Path

import triton

from benchmarks.gpu.compiled.demands import complaints
from benchmarks.gpu.compiled.rows import Key, Row

KERNELS = Path(__file__).resolve().parents[3] / "kernels"
PATH = Path(__file__).resolve().parents[2] / "results" / "compiled_kernels.md"

_HEAD = """# The Triton forms, compiled

Written by `python -m benchmarks.gpu.compiled` with triton {triton} from sources {digest}; nothing here was run on a
GPU. One row for each kernel that a call of the operation's public function launches, compiled for compute capability
8.0, 9.0 and 10.0.

- *warps*, *stages*: what it was compiled with, from the operation's `tiles.json`.
- *registers*: per thread. *shared*: bytes per program; 166,912 are allowed on 8.0, 232,448 on 9.0 and 10.0.
- *spills*: instructions that read or write local memory, hot + others; hot are those in loops, or all where no loop
  loads from global memory. *stack*: bytes of local memory per thread.
- *loads*: hot instructions that load from global memory, into registers or on to shared memory, × bytes per thread.
- *matrix*: how many matrix instructions: `mma`, `wgmma` (9.0 alone), `tcgen05` (10.0 alone).
- *wrong*: what is demanded in `benchmarks/gpu/compiled/demands.py` and not so.

| operation | case | kernel | for | warps | stages | registers | shared | stack | spills | loads | matrix | wrong |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|---|
"""


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    return head() + "".join(line(row) + "\n" for row in rows)


def head() -> str:
    """What comes before the rows; it names the version that compiled them."""
    return _HEAD.format(triton=triton.__version__, digest=digest())


def digest() -> str:
    """Of the Triton forms' code, without comments and docstrings, and of their tile shapes: another table belongs to
    other ones."""
    total = hashlib.sha256()
    for path in sorted(KERNELS.glob("*/triton*")) + sorted(KERNELS.glob("*/tiles.json")):
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            text = file.read_text()
            total.update(_code(text).encode() if file.suffix == ".py" else text.encode())
    return total.hexdigest()[:16]


def _code(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            del body[0]
    return ast.dump(tree)


def line(row: Row) -> str:
    """One row."""
    code, key = row.code, row.key
    cells = (
        *key[:3],
        f"{key.capability // 10}.{key.capability % 10}",
        row.num_warps,
        row.num_stages,
        code.registers,
        row.shared,
        code.stack,
        f"{code.hot_spills} + {code.cold_spills}",
        ", ".join(f"{count} × {width}" for width, count in sorted(code.loads.items(), key=_width)),
        ", ".join(f"{count} {kind}" for kind, count in sorted(code.matrix.items())),
        "; ".join(complaints(row)),
    )
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _width(item: tuple[str, int]) -> int:
    return -int(item[0]) if item[0].isdigit() else -1000


def committed(text: str) -> dict[Key, str]:
    """The lines of a page by their keys."""
    lines = [each for each in text.splitlines() if each.startswith("| ") and not each.startswith("| operation")]
    return {_key(each): each for each in lines}


def wrong(line: str) -> str:
    """What a line says is wrong."""
    return line.rstrip("| ").rsplit(" | ", 1)[-1] if not line.endswith("|  |") else ""


def _key(line: str) -> Key:
    operation, case, kernel, capability, *_ = (cell.strip() for cell in line.strip("|").split("|"))
    return Key(operation, case, kernel, int(capability.replace(".", "")))
