"""A small Debian root filesystem with Python, made once per user: what test images are made of.

Nothing but debootstrap and the machine's own package mirror is needed; both want root.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from tests.support import tiny_engine

_PACKAGES = "python3"
#: What a program that runs never reads; half of the size.
_LEFT_OUT = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./var/cache/apt", "./var/lib/apt/lists")
_SOURCES = Path("/etc/apt")


class Archive(NamedTuple):
    """A distribution's package archive: where ``deb`` packages of ``suite`` come from."""

    uri: str
    suite: str


def cache_folder() -> Path:
    """Where tests keep what takes long to make: in the user's cache folder, outside the repository."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "slipway-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def made_once(path: Path) -> Iterator[Path | None]:
    """Yield a draft to make ``path`` of, or None where it is there; of several processes one makes it.

    The draft becomes ``path`` only when the block ends well, so a killed maker leaves nothing half-made in its place.
    """
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        draft = path.with_name(f"{path.name}.draft")
        draft.unlink(missing_ok=True)
        yield draft
        draft.rename(path)


def rootfs_tar() -> Path:
    """A tar file (120 MB) of Debian's minimal system with ``python3``, of the machine's own release.

    The first call of a user takes about a minute.
    """
    archive = package_archive()
    path = cache_folder() / f"rootfs-{archive.suite}-{_PACKAGES}.tar"
    with made_once(path) as draft:
        if draft is not None:
            with tempfile.TemporaryDirectory(prefix="slipway-rootfs-") as folder:
                _debootstrap(archive, Path(folder))
                excluded = [f"--exclude={name}" for name in _LEFT_OUT]
                subprocess.run(["tar", "-C", folder, *excluded, "-cf", str(draft), "."], check=True)
    return path


def _debootstrap(archive: Archive, folder: Path) -> None:
    argv = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", archive.suite, str(folder), archive.uri]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=280)
    if done.returncode != 0:
        raise RuntimeError(f"debootstrap failed (it needs root and {archive.uri}):\n{done.stdout[-2000:]}")


def package_archive() -> Archive:
    """The first package archive that apt knows, in either of its formats."""
    for file in sorted(_SOURCES.glob("sources.list.d/*.sources")):
        text = file.read_text()
        uri, suite = re.search(r"^URIs:\s*(\S+)", text, re.M), re.search(r"^Suites:\s*(\S+)", text, re.M)
        if uri and suite:
            return Archive(uri[1], suite[1])
    for file in [_SOURCES / "sources.list", *sorted(_SOURCES.glob("sources.list.d/*.list"))]:
        if file.exists() and (line := re.search(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", file.read_text(), re.M)):
            return Archive(line[1], line[2])
    raise RuntimeError("no package archive is configured in /etc/apt: nothing to make a root filesystem from")


def tiny_image_tar(folder: Path) -> Path:
    """The root filesystem with ``tiny_engine.py`` as ``/usr/local/bin/slipway-serve``, in ``folder``."""
    path = folder / "tiny-image.tar"
    shutil.copyfile(rootfs_tar(), path)
    program = b"#!/usr/bin/python3\n" + Path(tiny_engine.__file__).read_bytes()
    with tarfile.open(path, "a") as tar:
        entry = tarfile.TarInfo("./usr/local/bin/slipway-serve")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, BytesIO(program))
    return path
