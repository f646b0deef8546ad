"""A wall clock that a test moves, for whole processes: see moved_clock.c."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


class MovedClock:
    """``environment`` gives a process this clock; it starts out right."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        library, self._offset = folder / "moved_clock.so", folder / "offset"
        compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or "cc"
        argv = [compiler, "-shared", "-fPIC", "-O1", str(_SOURCE), "-o", str(library), "-ldl"]
        subprocess.run(argv, check=True)
        self._offset.write_bytes(struct.pack("=q", 0))
        self.environment = {"LD_PRELOAD": str(library), "MOVED_CLOCK": str(self._offset)}

    def set(self, offset_s: int) -> None:
        """Let it show the right time and so many seconds."""
        with self._offset.open("r+b") as file:  # in place: the processes have mapped it
            file.write(struct.pack("=q", offset_s))
