"""What the engine process sets up before it imports torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serving_image.engine import process
from serving_image.engine.protocol import BootPhase
from serving_image.engine.timeline import BootTimeline


@pytest.fixture
def openmp_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        # Set first, so that monkeypatch also removes what the test adds.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("openmp_unset")
def test_threads_soon_sleep_at_barriers_unless_the_person_chose_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    process.configure_openmp(threads=3)
    assert (os.environ["GOMP_SPINCOUNT"], os.environ["OMP_NUM_THREADS"]) == (process.SPIN_COUNT, "3")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    process.configure_openmp(threads=None)
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    process.configure_openmp(threads=None)
    assert "GOMP_SPINCOUNT" not in os.environ


def test_nothing_before_the_settings_imports_torch() -> None:
    """libgomp reads its settings when torch loads it, so the modules that set them must not load torch."""
    program = "import sys, serving_image.engine.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_process_knows_its_age() -> None:
    program = (
        "from serving_image.engine import process; a = process.seconds_since_process_start();"
        "b = process.seconds_since_process_start(); print(a, b)"
    )
    first, second = map(float, subprocess.check_output([sys.executable, "-c", program], text=True).split())
    assert 0 <= first <= second < 60


def test_the_timeline_adds_up_to_the_age_of_the_process() -> None:
    ages = iter([0.5, 2.0, 2.25, 3.25, 3.5])
    timeline = BootTimeline(lambda: next(ages))
    with timeline.phase("import torch"):
        pass
    with timeline.phase("weights"):
        pass
    assert timeline.phases == [
        BootPhase("interpreter", 0.5),
        BootPhase("import torch", 1.5),
        BootPhase("weights", 1.0),
    ]
    assert timeline.table().splitlines()[-1].split() == ["ready", "after", "3.50", "s"]


def test_an_engine_whose_server_ended_before_it_could_ask_the_kernel_ends_too() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    argv = [
        sys.executable,
        "-m",
        "serving_image.engine",
        "--options",
        "{}",
        "--input",
        "ipc:///x",
        "--output",
        "ipc:///y",
    ]
    orphan = subprocess.run([*argv, "--parent", str(gone.pid)], capture_output=True, text=True, timeout=60, check=False)
    assert orphan.returncode == 1
    assert orphan.stderr.strip() == "the server that started this engine has ended"
