"""The tests of kernels and runtime on the GPU that is here: the same ones that run under the interpreter elsewhere."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

_ROOT = Path(__file__).resolve().parents[2]
SUITES: tuple[tuple[str, ...], ...] = (
    # Compiling for other GPUs needs none.
    ("tests/kernels", "--ignore=tests/kernels/test_compiled.py"),
    ("tests/serving_image/runtime/gpu",),
)
_WORKERS = 8


def run(limit: float) -> dict[str, Any]:
    """Run both suites; what passed, failed and was skipped.

    The suite's common fixtures, which need databases and a broker, are left out, so pytest and hypothesis suffice.
    """
    started = time.monotonic()
    total: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "output": ""}
    for suite in SUITES:
        left = limit - (time.monotonic() - started)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            output = _pytest(suite, report, left)
            found = account(report.read_text()) if report.exists() else None
        if found is None:
            total["failures"].append(f"{suite[0]} did not end")
            total["failed"] += 1
            total["output"] += output[-4000:]
            continue
        for name in ("passed", "failed", "skipped", "failures"):
            total[name] += found[name]
        if found["failures"]:
            total["output"] += output[-4000:]
    total["seconds"] = time.monotonic() - started
    return total


def account(report: str) -> dict[str, Any]:
    """What a report in JUnit's format says."""
    cases = ElementTree.fromstring(report).iter("testcase")  # noqa: S314 - pytest has just written it
    found: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": []}
    for case in cases:
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            found["failed"] += 1
            found["failures"].append(f"{case.get('classname')}::{case.get('name')}")
        else:
            found["skipped" if "skipped" in kinds else "passed"] += 1
    return found


def _pytest(suite: tuple[str, ...], report: Path, seconds: float) -> str:
    argv = [sys.executable, "-m", "pytest", "-q", *suite, f"--confcutdir={suite[0]}", f"--junitxml={report}"]
    # Options of plugins that may be absent here.
    argv += ["-o", "addopts=", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):
        argv += ["-n", str(min(_WORKERS, os.cpu_count() or 1))]
    try:
        done = subprocess.run(
            argv, cwd=_ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as expired:
        return f"{expired.output or ''}\nended after {seconds:.0f} s"
    return done.stdout
