"""The replicas of this host, as their folders tell."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from control_plane.providers.ssh_host.supervisor.files import Json, read_json

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
#: Logs of deleted replicas that are kept.
ENDED_KEPT = 20
#: Seconds that a watching process has to say its first word.
START_S = 30.0
#: In every replica's environment, with its folder as value: how its helpers are recognised when it is dead.
MARKER = "SLIPWAY_REPLICA_FOLDER"


class Refused(Exception):
    """It cannot be done like this; ``args`` are what is wrong and what would work."""


class WeightsMissing(Refused):
    """The folder with the weights is not there."""


class Host:
    """The folder, and which boot of the machine this is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def folder(self, name: str) -> Path:
        """Where one replica's files are."""
        if not NAME.fullmatch(name):
            raise Refused(f"{name!r} cannot name a replica", "Use lower case letters, digits and dashes.")
        return self.root / "replicas" / name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile."""
        with (self.root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def folders(self) -> list[Path]:
        """Of every replica there is."""
        return sorted(path.parent for path in self.root.glob("replicas/*/spec.json"))


def status_of(host: Host, folder: Path, owner: str | None = None) -> Json | None:
    """What is known of a replica; None if there is none, or it is another owner's."""
    spec = read_json(folder / "spec.json")
    if spec is None or (owner is not None and spec["owner"] != owner):
        return None
    status = {key: spec[key] for key in ("name", "boot_token", "labels", "created_at")}
    known: Json | None = None
    for _ in range(2):  # it may end between our look at the lock and that at the file
        known = read_json(folder / "status.json")
        if known is None and abs(time.time() - spec["created_at"]) < START_S and spec["boot_id"] == host.boot_id:
            return dict(status, state="pending", reason="starting")
        known = known or {"state": "pending", "boot_id": spec["boot_id"]}
        if known["state"] in {"exited", "lost"}:
            return dict(status, state=known["state"], exit_code=known.get("exit_code"), reason=known.get("reason"))
        if watched(folder):
            return dict(status, state=known["state"], port=known.get("port"), reason=known.get("reason"))
    if known is None or not folder.exists():
        return None
    restarted = known["boot_id"] != host.boot_id
    return dict(status, state="lost", reason="the host was restarted" if restarted else "its supervisor was killed")


def watched(folder: Path) -> bool:
    """Whether the process that watches this replica lives."""
    try:
        with (folder / "run.lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


def taken_devices(host: Host) -> dict[str, str]:
    """Devices that replicas here were given, and which."""
    taken = {}
    for folder in host.folders():
        for uuid in (read_json(folder / "status.json") or {}).get("devices", ()) if watched(folder) else ():
            taken[uuid] = folder.name
    return taken


def kill_survivors(folder: Path) -> None:
    """Kill what a replica that nobody watches any more left behind: its own helpers may outlive it.

    They are known by the marker in their environment, which, unlike a process id in a file, is never reused.
    """
    marker = f"{MARKER}={folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if marker in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def forget(host: Host, folder: Path) -> None:
    """Remove what is left of a replica; its log is kept for a while."""
    kill_survivors(folder)
    kept = host.root / "ended" / folder.name
    shutil.rmtree(kept, ignore_errors=True)
    kept.parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (folder / "log").rename(kept)
        os.utime(kept)
    shutil.rmtree(folder, ignore_errors=True)
    for old in sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-ENDED_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
