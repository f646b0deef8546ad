"""How a process that has no socket of its own says that it has begun its work: a file with its pid."""

from __future__ import annotations

import os
from pathlib import Path

from control_plane.settings import Settings


def _path(settings: Settings, name: str) -> Path:
    return settings.run_dir / f"{name}.ready"


def announce(settings: Settings, name: str) -> None:
    """Say that this process does the work of ``name``."""
    settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    _path(settings, name).write_text(str(os.getpid()))


def announced(settings: Settings, name: str, pid: int) -> bool:
    """Whether process ``pid`` has said so; what an earlier process left behind does not count."""
    try:
        return _path(settings, name).read_text() == str(pid)
    except FileNotFoundError:
        return False
