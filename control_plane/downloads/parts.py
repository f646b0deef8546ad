"""A file on its way: its bytes in ranges, and on disk which of them are here.

::

    <cache>/.slipway-parts/<etag>/
        data      the file, sparse; ranges fill up side by side, each from its start
        ranges    header (magic, file size, range size), then one 8-byte count of written bytes per range
        lock      flock: one process at a time

    data    │######----│##########│###-------│------│      a range is filled without gaps,
    ranges  │        6 │       10 │        3 │    0 │      so one number says everything about it

Every write goes to ``data`` first and is counted in ``ranges`` next, both into the page cache of the kernel, which
outlives the process: after a SIGKILL at most one chunk per connection (64 KiB) was received and not counted. After a
power failure ``ranges`` could promise more than ``data`` holds; the checksum tells, and the file is fetched anew.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<8sQQ")
_COUNT = struct.Struct("<Q")
_MAGIC = b"slipway1"


@dataclass
class Range:
    """Bytes ``start`` to ``stop`` (exclusive) of a file, the first ``written`` of which are on disk."""

    index: int
    start: int
    stop: int
    written: int = 0

    @property
    def position(self) -> int:
        """The next byte to fetch."""
        return self.start + self.written

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return self.stop - self.position


class Part:
    """An open, locked part. Make one with :func:`open_part`."""

    def __init__(self, folder: Path, size: int, range_bytes: int) -> None:
        self.folder = folder
        self.size = size
        self._data = os.open(self.data_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._counts = os.open(folder / "ranges", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.ranges = self._recover() or self._begin(range_bytes)
        self.written = sum(r.written for r in self.ranges)

    @property
    def data_path(self) -> Path:
        """The file itself."""
        return self.folder / "data"

    @property
    def missing(self) -> list[Range]:
        """Ranges with bytes still to come, in order."""
        return [r for r in self.ranges if r.missing]

    @property
    def complete(self) -> bool:
        """Whether every byte is here. Whether they are the right ones, the checksum tells."""
        return self.written == self.size

    @property
    def contiguous(self) -> int:
        """Length of the beginning of the file that has no gap: what can be hashed already."""
        first_gap = next((r for r in self.ranges if r.missing), None)
        return self.size if first_gap is None else first_gap.position

    def write(self, into: Range, chunk: bytes) -> None:
        """Append ``chunk`` to what is there of a range.

        :raises ValueError: more bytes than the range has room for.
        :raises OSError: the disk is full, or worse; what was written before stays.
        """
        if len(chunk) > into.missing:
            raise ValueError(f"{len(chunk)} bytes do not fit into the last {into.missing} of a range")
        view = memoryview(chunk)
        while view:  # a disk that is nearly full takes less than it is given
            count = os.pwrite(self._data, view, into.position)
            into.written += count
            self.written += count
            self._count(into)
            view = view[count:]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from disk; call it for bytes that were written."""
        return os.pread(self._data, length, offset)

    def restart(self) -> None:
        """Forget every byte: they were the wrong ones."""
        os.ftruncate(self._data, 0)
        os.ftruncate(self._data, self.size)
        for r in self.ranges:
            r.written = 0
            self._count(r)
        self.written = 0

    def close(self) -> None:
        """Let go of the files; they stay on disk."""
        os.close(self._data)
        os.close(self._counts)

    def _count(self, of: Range) -> None:
        os.pwrite(self._counts, _COUNT.pack(of.written), _HEADER.size + _COUNT.size * of.index)

    def _recover(self) -> list[Range]:
        """The ranges that an earlier process left; none if it left nothing that can be trusted."""
        header = os.pread(self._counts, _HEADER.size, 0)
        if len(header) != _HEADER.size or os.fstat(self._data).st_size != self.size:
            return []
        magic, size, range_bytes = _HEADER.unpack(header)
        if magic != _MAGIC or size != self.size or range_bytes == 0:
            return []
        ranges = _split(size, range_bytes)
        counts = os.pread(self._counts, _COUNT.size * len(ranges), _HEADER.size)
        if len(counts) != _COUNT.size * len(ranges):
            return []
        for r, (written,) in zip(ranges, _COUNT.iter_unpack(counts), strict=True):
            if written > r.stop - r.start:
                return []
            r.written = written
        return ranges

    def _begin(self, range_bytes: int) -> list[Range]:
        """An empty part. The header is written last, so that a crash on the way leaves nothing to recover."""
        os.ftruncate(self._counts, 0)
        os.ftruncate(self._data, 0)
        os.ftruncate(self._data, self.size)
        ranges = _split(self.size, range_bytes)
        os.pwrite(self._counts, b"\0" * (_COUNT.size * len(ranges)), _HEADER.size)
        os.pwrite(self._counts, _HEADER.pack(_MAGIC, self.size, range_bytes), 0)
        return ranges


def _split(size: int, range_bytes: int) -> list[Range]:
    starts = range(0, size, range_bytes)
    return [Range(index, start, min(start + range_bytes, size)) for index, start in enumerate(starts)]


def bytes_on_disk(folder: Path, size: int) -> int:
    """How much of a file an earlier process left in ``folder``, looked up without a lock."""
    try:
        with (folder / "ranges").open("rb") as file:
            magic, recorded, _ = _HEADER.unpack(file.read(_HEADER.size))
            counts = file.read()
    except (OSError, struct.error):
        return 0
    if magic != _MAGIC or recorded != size or len(counts) % _COUNT.size:
        return 0
    total: int = sum(written for (written,) in _COUNT.iter_unpack(counts))
    return min(size, total)


class PartBusy(Exception):
    """Another download is fetching this very file."""


@contextmanager
def open_part(folder: Path, size: int, range_bytes: int) -> Iterator[Part]:
    """Lock and open the part in ``folder``; it is made if need be.

    :param range_bytes: how the file is divided if nothing of it is here yet.
    :raises PartBusy: somebody else, in this process or another one, has it open.
    """
    with _locked(folder):
        part = Part(folder, size, range_bytes)
        try:
            yield part
        finally:
            part.close()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PartBusy(str(folder)) from None
        # The one who had it may have removed the folder between our open and our lock: ours is no longer *the* lock.
        if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise PartBusy(str(folder))
        yield
    finally:
        os.close(descriptor)


def remove_part(folder: Path) -> None:
    """Delete a part whose bytes are in the cache; left alone while somebody fetches the same file for another model."""
    if not folder.exists():
        return
    with suppress(PartBusy), _locked(folder):
        shutil.rmtree(folder, ignore_errors=True)
