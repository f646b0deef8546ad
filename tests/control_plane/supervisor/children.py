"""Tiny processes to supervise."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from control_plane.supervisor.child import ChildSpec

#: Each says that it lives by a file with its pid.
SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
DYING = "import sys; print('no luck today'); sys.exit(7)"
#: Leaves a grandchild in its process group.
PARENT = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[2], sys.argv[1] + '.child']); " + SLEEPER
)


def spec(folder: Path, name: str, program: str = SLEEPER, *, grace_s: float = 5.0) -> ChildSpec:
    """A child that is ready once its pid file names it."""
    pid_file = folder / f"{name}.pid"

    async def ready(pid: int) -> bool:
        return pid_file.read_text() == str(pid)

    argv = (sys.executable, "-c", program, str(pid_file), SLEEPER)
    return ChildSpec(name, argv, dict(os.environ), ready, stop_grace_s=grace_s)
