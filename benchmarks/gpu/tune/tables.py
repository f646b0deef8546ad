"""The files ``kernels/<operation>/tiles.json``: one line for each shape, so that a change is a line in a diff."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kernels.gpu.tiles import Entry, TileShape

KERNELS = Path(__file__).resolve().parents[3] / "kernels"


def adopt(shapes: dict[Entry, TileShape], capability: int, folder: Path = KERNELS) -> None:
    """Put shapes into the tables of ``folder`` as those of ``capability``."""
    for operation in {operation for operation, _, _ in shapes}:
        path = folder / operation / "tiles.json"
        table = json.loads(path.read_text())
        for (of, kernel, case), shape in shapes.items():
            if of == operation:
                table[kernel].setdefault(str(capability), {})[case] = dict(shape)
        path.write_text(text(table))


def text(table: Any) -> str:
    """A table as the files have it."""
    return _text(table, "") + "\n"


def _text(value: Any, indent: str) -> str:
    if not any(isinstance(member, dict) for member in value.values()):
        return json.dumps(value)
    inner = indent + "  "
    members = (f"{inner}{json.dumps(key)}: {_text(member, inner)}" for key, member in value.items())
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"
