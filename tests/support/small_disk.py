"""A disk of a few megabytes for one process: a tmpfs in a mount namespace of its own, which ends with the process.

It is no file system that anybody else sees, so nothing is left mounted, however the test ends.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def on_small_disk(folder: Path, size: int) -> list[str]:
    """The beginning of a command line: what follows it finds at ``folder`` a disk of ``size`` bytes."""
    alone = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        alone += ["--map-root-user"]
    mount = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'
    return [*alone, "--", "sh", "-c", mount, "sh", str(size), str(folder)]


def seen_by(pid: int, folder: Path) -> Path:
    """Where this process finds what process ``pid`` sees at ``folder``."""
    return Path(f"/proc/{pid}/root") / folder.relative_to("/")


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk under ``folder`` but for ``leave`` bytes, or entirely if others write meanwhile; the new file."""
    free = os.statvfs(folder)
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        for _ in range((free.f_bavail * free.f_frsize - leave) // (1 << 16)):
            file.write(bytes(1 << 16))
    return ballast
