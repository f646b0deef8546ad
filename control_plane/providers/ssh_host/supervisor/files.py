"""Small files: JSON that is replaced whole, and secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict  # noqa: UP035 (Python 3.8 knows no other)

Json = Dict[str, Any]  # noqa: UP006 (evaluated at run time, by Python 3.8 too)


def read_json(path: Path) -> Json | None:
    """An object in a file; None if there is none."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return dict(value)


def write_json(path: Path, value: Json) -> None:
    """Write so that a reader meets the old or the new, whole; a folder that was removed meanwhile stays removed."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(value))
        draft.replace(path)
    except FileNotFoundError:
        return


def write_private(path: Path, text: str) -> None:
    """A file that its owner alone can read."""
    with os.fdopen(os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
