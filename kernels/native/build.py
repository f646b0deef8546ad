"""Compiles the C++ sources into the library that this package loads."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "src"
FLAGS = (
    *("-std=c++17", "-O3", "-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni", "-ffp-contract=off"),
    *("-fno-exceptions", "-fPIC", "-shared", "-pthread"),
)


def library_path() -> Path:
    """Where the library for today's sources is: a library of other sources is never loaded."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return FOLDER / f"libslipway_kernels-{digest.hexdigest()[:16]}.so"


def build() -> Path:
    """Compile the library if it is not there.

    :raises RuntimeError: this is no x86-64 machine, there is no C++ compiler, or it refuses the sources.
    """
    target = library_path()
    if target.exists():
        return target
    if platform.machine() != "x86_64":
        raise RuntimeError(f"the compiled kernels are for x86_64, and this is {platform.machine()}")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("there is no C++ compiler; install g++")
    # Its own name until it is whole, so that two builds at once do not meet.
    unfinished = target.with_suffix(f".{os.getpid()}")
    argv = [compiler, *FLAGS, *map(str, sorted(SOURCES.glob("*.cpp"))), "-o", str(unfinished)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{compiler} failed:\n{done.stderr[-2000:]}")
        for old in FOLDER.glob("libslipway_kernels-*.so"):
            old.unlink()
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target
