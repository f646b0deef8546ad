"""A replica's log, copied from the cluster while it lives: a container's own log goes with its pod.

The API gives lines by time, never by byte, so what was copied is what bytes are counted in. Each look fetches what is
newer than the last line that was copied; a kubelet's log is rotated at 10 MiB, so looks that are far apart may miss
the middle of a very talkative boot.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from control_plane.providers.base import ProviderError
from control_plane.providers.kubernetes_api.client import KubernetesApi
from control_plane.providers.kubernetes_api.options import ClusterOptions
from control_plane.providers.kubernetes_api.pod import CONTAINER
from control_plane.providers.kubernetes_api.state import Pod
from control_plane.providers.log_store import LogStore

#: How a line begins. Others are a kubelet's own words, such as "unable to retrieve container logs …".
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\S+ ")
#: Bytes that one request fetches at most.
_PIECE = 4 << 20


@dataclass(frozen=True)
class _Cursor:
    """How far a pod's log was copied: the time of the last line, and how many lines with that very time were."""

    pod: str = ""
    time: str = ""
    seen: int = 0
    restarts: int = 0


@dataclass(frozen=True)
class PodLog:
    """The copy of one replica's log, in a folder that all web servers and workers of one machine share."""

    folder: Path

    @property
    def store(self) -> LogStore:
        """What was copied."""
        return LogStore(self.folder / "log")

    def copy(self, api: KubernetesApi, options: ClusterOptions, pod: Pod) -> None:
        """Append what is new.

        :raises ProviderUnavailable: it cannot be fetched now.
        """
        if not pod.running and pod.end is None:
            return
        with self._locked():
            cursor = self._cursor()
            if cursor.pod != pod.uid:
                cursor = _Cursor(pod.uid)
            if pod.restarts > cursor.restarts:
                cursor = self._append(api, options, pod, cursor, previous=True)
            cursor = self._append(api, options, pod, cursor, previous=False)
            draft = self._cursor_file.with_suffix(".draft")
            draft.write_text(json.dumps(asdict(cursor) | {"restarts": pod.restarts}))
            draft.replace(self._cursor_file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time, of all processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _append(
        self, api: KubernetesApi, options: ClusterOptions, pod: Pod, cursor: _Cursor, *, previous: bool
    ) -> _Cursor:
        while True:
            text = _fetch(api, options, pod, cursor, previous=previous)
            whole = len(text.encode()) < _PIECE
            fresh, cursor = _newer(text, cursor, keep_unfinished=whole and not pod.running)
            if fresh:
                self.store.append("".join(fresh).encode())
            if whole or not fresh:
                return cursor

    @property
    def _cursor_file(self) -> Path:
        return self.folder / "log.cursor"

    def _cursor(self) -> _Cursor:
        try:
            return _Cursor(**json.loads(self._cursor_file.read_text()))
        except (OSError, ValueError, TypeError):
            return _Cursor()


def _fetch(api: KubernetesApi, options: ClusterOptions, pod: Pod, cursor: _Cursor, *, previous: bool) -> str:
    query = {"container": CONTAINER, "timestamps": "true", "limitBytes": str(_PIECE)}
    if previous:
        query["previous"] = "true"
    if cursor.time:
        query["sinceTime"] = cursor.time
    try:
        return api.text(f"{options.pods(pod.name)}/log", **query) or ""
    except ProviderError:
        return ""  # the container has not begun, or the one before it is forgotten


def _newer(text: str, start: _Cursor, *, keep_unfinished: bool) -> tuple[list[str], _Cursor]:
    """The lines of ``text`` behind ``start``, without their times, and where they end.

    The kubelet writes times with nine digits, so that their order is that of their text.
    """
    cursor, fresh, met = start, [], 0
    for line in text.splitlines(keepends=True):
        time, _, words = line.partition(" ")
        if not _TIME.match(line) or time < start.time or not (line.endswith("\n") or keep_unfinished):
            continue
        if time == start.time:
            met += 1
            if met <= start.seen:
                continue
        cursor = replace(cursor, time=time, seen=cursor.seen + 1 if time == cursor.time else 1)
        fresh.append(words)
    return fresh, cursor
