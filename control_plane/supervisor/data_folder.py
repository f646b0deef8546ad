"""One supervisor per data folder: who holds it, and what the supervisor says of its processes."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from control_plane.errors import Conflict
from control_plane.settings import Settings
from control_plane.supervisor.supervisor import ProcessReport

_PROBE_RETRIES = 10


class AlreadyRunning(Conflict):
    """Another supervisor holds the data folder."""

    code = "already_running"


class UnsafeFolder(Conflict):
    """A folder that must be private is not."""

    code = "unsafe_folder"


@dataclass(frozen=True)
class Holder:
    """The supervisor that holds a data folder."""

    pid: int
    url: str
    version: str
    started_at: str


def prepare(settings: Settings) -> None:
    """Make the folders that must be there before anything starts, private to this user.

    :raises UnsafeFolder: the folder for sockets belongs to somebody else.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in (settings.run_dir, settings.redis_socket.parent, logs_dir(settings), settings.data_dir / "redis"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise UnsafeFolder(f"{folder} does not belong to this user", "Remove it, or choose another data folder.")
        folder.chmod(0o700)


def logs_dir(settings: Settings) -> Path:
    """Output of the processes that the supervisor runs, one file each."""
    return settings.data_dir / "logs"


def _lock_path(settings: Settings) -> Path:
    return settings.run_dir / "lock"


def _processes_path(settings: Settings) -> Path:
    return settings.run_dir / "processes.json"


@contextmanager
def held(settings: Settings, holder: Holder) -> Iterator[None]:
    """Hold the data folder; the kernel lets go of it when this process ends, however it ends.

    :raises AlreadyRunning: somebody else holds it.
    """
    descriptor = os.open(_lock_path(settings), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(descriptor):
            other = _read_holder(settings)
            who = f" (process {other.pid}, {other.url})" if other else ""
            raise AlreadyRunning(
                f"Slipway is already running on {settings.data_dir}{who}",
                f"Use it, end it with 'slipway down --data {settings.data_dir}', or choose another folder with --data.",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
        yield
        _processes_path(settings).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    # A command that only asks who holds the folder (find_holder) has the lock for an instant: try more than once.
    for _ in range(_PROBE_RETRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def find_holder(settings: Settings) -> Holder | None:
    """The supervisor that holds the data folder now; None if nobody does."""
    try:
        descriptor = os.open(_lock_path(settings), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(settings)
    finally:
        os.close(descriptor)
    return None


def _read_holder(settings: Settings) -> Holder | None:
    try:
        return Holder(**json.loads(_lock_path(settings).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_processes(settings: Settings, processes: list[ProcessReport]) -> None:
    """Publish what the processes do, for ``slipway status``."""
    path = _processes_path(settings)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps([asdict(process) for process in processes]))
    draft.replace(path)


def read_processes(settings: Settings) -> list[ProcessReport]:
    """What was published last; empty when nothing is running."""
    try:
        return [ProcessReport(**item) for item in json.loads(_processes_path(settings).read_text())]
    except FileNotFoundError:
        return []
