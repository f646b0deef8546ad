"""What the engine process asks of the operating system. Imports nothing heavy: part of it must precede torch."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

#: Turns of the loop in which a thread waits at a barrier before it sleeps: some microseconds.
SPIN_COUNT = "1000"

#: Exit status of an engine that its watchdog has ended (:mod:`serving_image.engine.watchdog`).
STALLED_STATUS = 75

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, however it ends.

    :param parent: process id of the server. It may have ended before the kernel was asked, and then somebody else has
        adopted this process.
    :raises SystemExit: the parent has ended already; there is nobody to tell.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise SystemExit("the server that started this engine has ended")


def leave_signals_to_parent() -> None:
    """Ignore Ctrl-C and SIGTERM, which reach the whole process group: the server decides and sends Drain."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def configure_openmp(threads: int | None) -> None:
    """Set how torch's OpenMP threads wait, where torch computes; libgomp reads this once, when torch is imported.

    Its default spins for milliseconds at a barrier, so that a step takes many times its duration while the core of a
    late thread is busy with another process: 16 requests to a 246M model fell from 332 to 66-93 tokens a second.
    Sleeping at once costs a wake-up at every barrier (222, and 218-238 beside the other process). A short spin keeps
    most of both (275 and 172-199). What the person who started the server has set is kept. The compiled kernels do not
    use OpenMP.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def seconds_since_process_start() -> float:
    """Age of this process by the kernel's clock, so that the interpreter's own start is counted."""
    # The command name, field 2, may contain spaces; the fields after its parenthesis do not.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def prefetch(folder: Path) -> None:
    """Ask the kernel to read the weights into memory in the background, while Python imports torch."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
