"""Where a process's output goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TAIL_BYTES = 8192


@dataclass(frozen=True)
class LogFile:
    """An append-only file that a process writes to directly, so that its last words survive it and us.

    Kept below ``maximum_bytes`` by copy and truncate: the process keeps its descriptor (opened for appending), and
    the previous part is kept beside it as ``<name>.log.1``.
    """

    path: Path
    maximum_bytes: int = 16 << 20

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor to give to a process."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def cap(self) -> None:
        """Set the present part aside when it has grown too large."""
        try:
            if self.path.stat().st_size <= self.maximum_bytes:
                return
        except FileNotFoundError:
            return
        shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
        os.truncate(self.path, 0)

    def tail(self, lines: int) -> list[str]:
        """The last lines that are not empty."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]
