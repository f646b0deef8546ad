"""The folder that a replica's provider and its job share, on storage that this machine and the nodes both see.

::

    SHARED/OWNER/.present/NAME   for the list of replicas: of those long deleted only the logs are left
    SHARED/OWNER/NAME/
      boot.json         which boot there is to be, and whether it is to end         provider ──► job
      BOOT_TOKEN/
        replica.json    what to run                                                 provider ──► job
        api-key         what callers must present                                   provider ──► engine
        claim.json      which job may run it: written once, by whoever is first     provider or job
        run.json        which run of that job has taken over, and its port          job ──► provider, earlier runs
        end.json        how the engine ended                                        job ──► provider
      log/              of every boot; stays when the replica is deleted

Files appear whole (written aside, then renamed or linked), and those that a job watches exist from its beginning:
NFS shows a replaced file on the next open, but may hide a new one for a minute. Only the jobs' user can read them.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from control_plane.errors import Invalid
from control_plane.providers.base import ProviderUnavailable
from control_plane.providers.log_store import LogStore


class JobUser(NamedTuple):
    """The user that jobs run as; ids."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> JobUser:
        """
        :raises Invalid: jobs cannot run as ``name`` and be given files by this process.
        """
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            detail = f"Slurm jobs are to run as {name!r}, who is no user here"
            raise Invalid(detail, "Correct SLIPWAY_SLURM_USER.") from None
        if os.geteuid() not in {0, entry.pw_uid}:
            detail = f"Slurm jobs are to run as {name!r}, and this process cannot give that user files of its own"
            raise Invalid(detail, f"Run Slipway as {name!r} or as root, or correct SLIPWAY_SLURM_USER.")
        return cls(name, entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class Boot:
    """``boot.json``.

    :ivar token: None when the replica was deleted: a job that is still there must end.
    """

    token: str | None
    owner: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Stop(NamedTuple):
    """``stop.json`` of one boot, which is to end; there is none while it may run.

    ``grace_s`` are the seconds that the engine has to drain, from when its job reads this; ``at`` is when it was
    written, in seconds since 1970 by the provider's clock.
    """

    grace_s: float
    at: float


class Run(NamedTuple):
    """``run.json``: ``number`` counts the runs of a job from 0."""

    job: int
    number: int
    node: str
    port: int


class End(NamedTuple):
    """``end.json``."""

    job: int
    number: int
    exit_code: int
    reason: str | None


class ReplicaFolder:
    """One replica's folder."""

    def __init__(self, path: Path, user: JobUser) -> None:
        self.path = path
        self._user = user

    @property
    def log(self) -> LogStore:
        """The log of all boots."""
        return LogStore(self.path / "log")

    def boot(self) -> Boot | None:
        """The present boot; None where there is none, or it was deleted."""
        value = self._read(self.path / "boot.json")
        return Boot(value["token"], value["owner"], value["labels"]) if value and value["token"] is not None else None

    def boot_folder(self, token: str) -> Path:
        """Where the files of one boot are."""
        return self.path / token

    def prepare(self, boot: Boot, plan: Mapping[str, Any], api_key: str) -> None:
        """Lay out a boot and make it the present one; whoever does so again writes the same."""
        with _storage():
            folder = self.path / str(boot.token)
            for each in (self.path.parent, self.path, self.path / "log", folder):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._give(each)
            self._marker.parent.mkdir(mode=0o700, exist_ok=True)
            self._marker.touch()
            self._replace(folder / "api-key", api_key + "\n")
            self._replace(folder / "replica.json", json.dumps(plan))
            self._replace(self.path / "boot.json", json.dumps(asdict(boot)))
            self._remove_other_boots(str(boot.token))

    def stop(self, token: str, grace_s: float, at: float) -> Stop | None:
        """Tell the job of a boot to end; the order as it was first given, None where that boot is gone already."""
        if (given := self.stopped(token)) is not None:
            return given
        stop = Stop(grace_s, at)
        with _storage():
            try:
                self._replace(self.boot_folder(token) / "stop.json", json.dumps(stop._asdict()))
            except FileNotFoundError:
                return None
        return stop

    def stopped(self, token: str) -> Stop | None:
        """The order to end that a boot was given."""
        value = self._read(self.boot_folder(token) / "stop.json")
        return Stop(**value) if value else None

    def forget(self, token: str) -> None:
        """Remove all but the log, if this is still the present boot. A job of it that is cut off sees that and ends."""
        present = self.boot()
        if present is None or present.token != token:
            return
        with _storage():
            self._replace(self.path / "boot.json", json.dumps(asdict(Boot(None))))
            self._remove_other_boots(None)
            self._marker.unlink(missing_ok=True)

    @property
    def _marker(self) -> Path:
        return self.path.parent / ".present" / self.path.name

    def claim(self, token: str, job_id: int) -> int:
        """Let ``job_id`` run this boot, unless another job may already; the id of the one that may."""
        path = self.boot_folder(token) / "claim.json"
        with _storage():
            draft = self._draft(path.parent, json.dumps({"job": job_id}))
            try:
                # link(2) is atomic on NFS too, and the file has its content from the first moment.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        value = self._read(path)
        return int(value["job"]) if value else job_id

    def claimed(self, token: str) -> int | None:
        """The job that may run this boot; None while nobody has asked."""
        value = self._read(self.boot_folder(token) / "claim.json")
        return int(value["job"]) if value else None

    def plan(self, token: str) -> dict[str, Any]:
        """``replica.json``; empty where there is none."""
        return self._read(self.boot_folder(token) / "replica.json") or {}

    def run(self, token: str) -> Run | None:
        """The run that has taken over last."""
        value = self._read(self.boot_folder(token) / "run.json")
        return Run(**value) if value else None

    def end(self, token: str) -> End | None:
        """How the engine of the last run ended."""
        value = self._read(self.boot_folder(token) / "end.json")
        return End(**value) if value else None

    def last_words(self, token: str, job_id: int) -> str | None:
        """The last line of what the job itself, or its node, wrote outside the log: why it could not begin."""
        with _storage():
            try:
                with (self.boot_folder(token) / f"slurm-{job_id}.out").open("rb") as file:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - 1000))
                    lines = file.read().decode(errors="replace").split("\n")
            except FileNotFoundError:
                return None
        return next((line.strip() for line in reversed(lines) if line.strip()), None)

    def _read(self, path: Path) -> dict[str, Any] | None:
        with _storage():
            try:
                value: dict[str, Any] = json.loads(path.read_text())
            except FileNotFoundError:
                return None
            return value

    def _replace(self, path: Path, text: str) -> None:
        self._draft(path.parent, text).replace(path)

    def _draft(self, folder: Path, text: str) -> Path:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".draft-", delete=False) as file:  # mode 0600
            file.write(text)
        self._give(Path(file.name))
        return Path(file.name)

    def _give(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, self._user.uid, self._user.gid)

    def _remove_other_boots(self, token: str | None) -> None:
        for each in self.path.iterdir():
            if each.is_dir() and each.name not in {"log", token}:
                with suppress(FileNotFoundError):
                    shutil.rmtree(each)


class SharedFolder:
    """All replicas' folders of one installation."""

    def __init__(self, path: Path, owner: str, user: JobUser) -> None:
        self._path = path / owner
        self._user = user

    def replica(self, name: str) -> ReplicaFolder:
        """The folder of one replica, whether it exists or not."""
        return ReplicaFolder(self._path / name, self._user)

    def names(self) -> Iterator[str]:
        """Replicas that have a boot."""
        with _storage():
            folder = self._path / ".present"
            present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return (name for name in present if self.replica(name).boot() is not None)


@contextmanager
def _storage() -> Iterator[None]:
    """
    :raises ProviderUnavailable: the storage cannot be used now.
    """
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        detail = f"the folder shared with Slurm's nodes cannot be used ({what}{error.strerror or error})"
        step = (
            "Free some space there." if error.errno in {errno.ENOSPC, errno.EDQUOT} else "See SLIPWAY_SLURM_SHARED_DIR."
        )
        raise ProviderUnavailable(detail, step) from error
