"""A replica's log, copied from Docker whenever somebody asks: it outlives the container, and its offsets never move.

Docker's API knows no offsets, and drops old entries. So what is new is appended to a :class:`LogStore`. Which entry
came last is remembered by its time, its text and how often each text had come at that time: Podman's times have whole
seconds only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from docker.api import APIClient

from control_plane.providers.docker_api.state import parse_time
from control_plane.providers.log_store import LogStore


class _Entry(NamedTuple):
    """``time`` as Docker writes it; ``text`` with its line end, unless the line goes on in the next entry."""

    time: str
    text: bytes

    @property
    def key(self) -> tuple[str, str]:
        return self.time, hashlib.sha256(self.text).hexdigest()


@dataclass(frozen=True)
class _Cursor:
    """The last entry that was copied: its ``time`` and the ``digest`` of its text.

    :ivar counts: how many entries of that time were copied, by digest.
    """

    container: str
    time: str = ""
    digest: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many entries like the last one there were up to it; 0 before the first."""
        return self.counts.get(self.digest, 0)


@dataclass(frozen=True)
class ContainerLog:
    """The copy of one replica's log, in its folder; boots of one name follow each other."""

    folder: Path

    @property
    def store(self) -> LogStore:
        """What has been copied."""
        return LogStore(self.folder / "log")

    def copy_new(self, client: APIClient, container: str) -> None:
        """Append what the container has written since the last call. Any number of processes may do so at once."""
        with self._locked():
            cursor = self._cursor()
            if cursor.container != container:
                self.store.append(f"[slipway] container {container[:12]}\n".encode())
                cursor = _Cursor(container)
                self._write(cursor)
            entries = self._new(client, cursor)
            if entries:
                self.store.append(b"".join(entry.text for entry in entries))
                self._write(_after(cursor, entries))

    def _new(self, client: APIClient, cursor: _Cursor) -> list[_Entry]:
        """The entries after ``cursor``; all where its own is not there any more, for the oldest are dropped first."""
        if cursor.count == 0:
            return list(_entries(client, cursor.container))
        second = int(parse_time(cursor.time).timestamp()) - 1
        recent = list(_entries(client, cursor.container, since=second))
        found = _position(recent, cursor)
        if found is not None and found + 1 < len(recent):
            return recent[found + 1 :]
        # Nothing new by time; but where the clock was moved back, what is new has an earlier time.
        last = list(_entries(client, cursor.container, tail=1))
        if found is not None and last and last[-1].key == (cursor.time, cursor.digest):
            return []
        everything = list(_entries(client, cursor.container))
        found = _position(everything, cursor)
        return everything if found is None else everything[found + 1 :]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "docker-log.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def _path(self) -> Path:
        return self.folder / "docker-log.json"

    def _cursor(self) -> _Cursor:
        try:
            return _Cursor(**json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return _Cursor("")

    def _write(self, cursor: _Cursor) -> None:
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(cursor)))
        draft.replace(self._path)


def _entries(
    client: APIClient, container: str, *, since: int | None = None, tail: int | None = None
) -> Iterator[_Entry]:
    """Entries in the order in which Docker has them; of ``since`` (Unix time) or the last ``tail`` alone."""
    frames = client.logs(
        container, stream=True, follow=False, timestamps=True, since=since, tail="all" if tail is None else tail
    )
    for frame in frames:
        time, _, text = bytes(frame).partition(b" ")
        yield _Entry(time.decode("ascii", "replace"), text)


def _position(entries: list[_Entry], cursor: _Cursor) -> int | None:
    """Where in ``entries`` the one of ``cursor`` is."""
    count = 0
    for index, entry in enumerate(entries):
        if entry.key == (cursor.time, cursor.digest):
            count += 1
            if count == cursor.count:
                return index
    return None


def _after(cursor: _Cursor, entries: list[_Entry]) -> _Cursor:
    """The cursor at the end of ``entries``, which follow ``cursor``."""
    time, digest = entries[-1].key
    counts = Counter(cursor.counts if cursor.time == time else {})
    counts.update(entry.key[1] for entry in entries if entry.time == time)
    return _Cursor(cursor.container, time, digest, dict(counts))
