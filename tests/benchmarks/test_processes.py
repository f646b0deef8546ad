"""Process trees end whole."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import psutil
from engine.processes import running

CHILD = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('child', flush=True); signal.pause()"
PARENT = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
while True: signal.pause()
"""


def wait_for_child(log: Path, root: psutil.Process) -> psutil.Process:
    deadline = time.monotonic() + 60
    while "child" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return root.children()[0]


def test_a_paused_tree_and_a_child_that_ignores_sigterm_are_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running([sys.executable, "-c", PARENT, CHILD], log, {}, tmp_path) as tree:
        child = wait_for_child(log, psutil.Process(tree.process.pid))
        assert [member.pid for member in tree.members()] == [tree.process.pid, child.pid]
        assert tree.memory().rss > tree.memory().pss > 0
        tree.signal(signal.SIGSTOP)
    assert tree.process.returncode is not None
    assert not child.is_running()
