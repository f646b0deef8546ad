"""One supervisor per data folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.settings import Settings
from control_plane.supervisor import data_folder, ready_file
from control_plane.supervisor.child import ChildState
from control_plane.supervisor.data_folder import AlreadyRunning, Holder, UnsafeFolder, find_holder, held, prepare
from control_plane.supervisor.supervisor import ProcessReport
from tests.support.processes import eventually

HOLDER = Holder(4711, "http://127.0.0.1:9999", "1.2.3", "2026-01-01T00:00:00+00:00")

_HOLDING = """
import sys, time
from pathlib import Path
from control_plane.settings import Settings
from control_plane.supervisor.data_folder import Holder, held
with held(Settings(data_dir=Path(sys.argv[1])), Holder(1, "http://there", "1", "now")):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path / "data")
    prepare(settings)
    return settings


def test_the_second_is_told_who_holds_it(settings: Settings) -> None:
    with held(settings, HOLDER):
        assert find_holder(settings) == HOLDER
        with pytest.raises(AlreadyRunning, match=r"process 4711, http://127\.0\.0\.1:9999"), held(settings, HOLDER):
            pytest.fail("two hold one folder")
    assert find_holder(settings) is None
    with held(settings, HOLDER):
        assert find_holder(settings) == HOLDER


def test_the_kernel_lets_go_for_one_that_was_killed(settings: Settings) -> None:
    argv = [sys.executable, "-c", _HOLDING, str(settings.data_dir)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert find_holder(settings) == Holder(1, "http://there", "1", "now")
        other.send_signal(signal.SIGKILL)
    eventually(lambda: find_holder(settings) is None, "the folder is free")
    with held(settings, HOLDER):
        assert find_holder(settings) == HOLDER


def test_a_folder_that_was_never_used_has_no_holder(tmp_path: Path) -> None:
    assert find_holder(Settings(data_dir=tmp_path / "never")) is None


def test_what_processes_do_is_published_while_it_is_held(settings: Settings) -> None:
    report = ProcessReport("web", ChildState.READY, 12, 1, -9, "/logs/web.log")
    with held(settings, HOLDER):
        data_folder.write_processes(settings, [report])
        assert data_folder.read_processes(settings) == [report]
    assert data_folder.read_processes(settings) == []


def test_everything_prepared_is_private(settings: Settings) -> None:
    for folder in (settings.data_dir, settings.run_dir, settings.socket_dir):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_sockets_of_a_deep_data_folder_fit_and_a_foreign_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = Settings(data_dir=tmp_path / ("deep" * 30))
    assert len(str(settings.redis_socket)) <= 107
    assert settings.redis_socket.parent.parent == tmp_path
    settings.socket_dir.symlink_to(tmp_path)
    with pytest.raises(UnsafeFolder):
        prepare(settings)


def test_a_ready_file_speaks_for_one_process_only(settings: Settings) -> None:
    import os

    assert not ready_file.announced(settings, "worker", os.getpid())
    ready_file.announce(settings, "worker")
    assert ready_file.announced(settings, "worker", os.getpid())
    assert not ready_file.announced(settings, "worker", os.getpid() + 1)
