"""One repository's files from the hub into the cache: several files and several ranges of each at once.

::

    Transfer.run ─┬─ file a ─┬─ lane ── range 0, range 3, …     ≤ `connections` requests at a time over all files
                  │          ├─ lane ── range 1, range 4, …
                  │          └─ checksum, following the bytes   ─► verified ─► one rename into the cache
                  ├─ file b … (≤ `open_files` at a time)
                  └─ the snapshot's links, when all are done

All of it is one event loop in one thread; hashing and syncing run in helper threads. Cancelling ``run()`` stops it at
once, and what is on disk is where the next attempt begins.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import httpx

from control_plane.downloads.cache_layout import ModelCache, free_bytes
from control_plane.downloads.checksum import Checksum
from control_plane.downloads.failures import FinalFailure, TransientFailure, explain
from control_plane.downloads.parts import Part, PartBusy, Range, bytes_on_disk, open_part, remove_part
from control_plane.downloads.remote import RemoteFiles, Repository
from control_plane.downloads.retry import Backoff
from control_plane.downloads.states import DownloadState
from control_plane.downloads.units import format_bytes
from control_plane.hub.source import RepositoryFile

#: A request that brought this much counts as progress: the range's failures are counted from one again.
_PROGRESS_BYTES = 256 << 10
#: The longest that a range waits because the hub asked it to; more than this is for the whole download to wait.
_LONGEST_WAIT_S = 30.0
#: Waits between attempts at one range.
_RANGE_BACKOFF = Backoff(attempts=5, first_s=0.5, longest_s=10.0)
#: Seconds between looks at a file that another download is fetching.
_BUSY_POLL_S = 0.2


@dataclass(frozen=True)
class TransferOptions:
    """How hard to try. Times in seconds, sizes in bytes."""

    connections: int = 8
    open_files: int = 4
    range_bytes: int = 16 << 20
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 20.0
    backoff: Backoff = _RANGE_BACKOFF
    #: Left free on the disk beyond what the weights need: logs and the database live there too.
    disk_margin_bytes: int = 256 << 20
    free_bytes: Callable[[Path], int] = free_bytes

    def client(self) -> httpx.AsyncClient:
        """An HTTP client that follows nothing by itself and takes no longer than it may."""
        return httpx.AsyncClient(
            verify=_trusted_certificates(),
            timeout=httpx.Timeout(self.read_timeout_s, connect=self.connect_timeout_s, pool=None),
            limits=httpx.Limits(max_connections=self.connections, max_keepalive_connections=self.connections),
            headers={"User-Agent": "slipway"},
            follow_redirects=False,
        )


@lru_cache
def _trusted_certificates() -> ssl.SSLContext:
    """Read once: it takes a tenth of a second."""
    return httpx.create_ssl_context()


class _Blob:
    """The live state of one content; files of a repository with equal bytes share it."""

    def __init__(self, file: RepositoryFile, bytes_here: int, *, done: bool) -> None:
        self.file = file
        self.part: Part | None = None
        self.done = done
        self._bytes_here = bytes_here

    @property
    def bytes_done(self) -> int:
        """Bytes on disk."""
        if self.done:
            return self.file.size
        return self.part.written if self.part else self._bytes_here

    @property
    def state(self) -> DownloadState:
        """Where this file stands."""
        if self.done:
            return DownloadState.DONE
        if self.part is None:
            return DownloadState.QUEUED
        return DownloadState.VERIFYING if self.part.complete else DownloadState.DOWNLOADING

    def leave(self) -> None:
        """The part is closed: what is on disk stays counted."""
        self._bytes_here, self.part = self.bytes_done, None


class Transfer:
    """Brings ``files`` of ``repository`` into the cache under ``root``.

    :param offline: use what is in the cache already; ask nobody.
    """

    def __init__(
        self,
        repository: Repository,
        files: Iterable[RepositoryFile],
        root: Path,
        options: TransferOptions,
        *,
        offline: bool = False,
    ) -> None:
        self.cache = ModelCache(root, repository.model)
        self.files = tuple(files)
        #: What went wrong last, if no byte has arrived since.
        self.trouble: str | None = None
        self._repository = repository
        self._options = options
        self._offline = offline
        self._blobs = {file.etag: self._look_up(file) for file in self.files}
        self._connections = asyncio.Semaphore(options.connections)
        self._open_files = asyncio.Semaphore(options.open_files)

    @property
    def bytes_done(self) -> int:
        """Bytes on disk, over all files."""
        return sum(self._blobs[file.etag].bytes_done for file in self.files)

    @property
    def state(self) -> DownloadState:
        """VERIFYING once the last byte is here and checksums are still being computed."""
        verifying = all(blob.state in {DownloadState.VERIFYING, DownloadState.DONE} for blob in self._blobs.values())
        return DownloadState.VERIFYING if verifying else DownloadState.DOWNLOADING

    def progress(self) -> dict[str, tuple[int, DownloadState]]:
        """Bytes on disk and state of each file, by path."""
        blobs = {file.path: self._blobs[file.etag] for file in self.files}
        return {path: (blob.bytes_done, blob.state) for path, blob in blobs.items()}

    async def run(self) -> Path:
        """Fetch what is missing, verify it, and link the snapshot; returns its folder.

        :raises TransferFailure: whatever kept it from succeeding; a final one if there is any.
        """
        try:
            await self._fetch_missing()
            return self.cache.link(self._repository.commit_sha, self.files)
        except (OSError, ExceptionGroup) as error:
            failure = explain(error)
            if failure is None:
                raise
            raise failure from error

    async def _fetch_missing(self) -> None:
        missing = sorted((blob for blob in self._blobs.values() if not blob.done), key=lambda blob: blob.file.size)
        if missing and self._offline:
            raise FinalFailure(
                f"HF_HUB_OFFLINE is set and {len(missing)} files of {self._repository.model} are not in the cache",
                "Unset HF_HUB_OFFLINE, or put the model into the cache on another way, then launch again.",
            )
        self._check_disk(missing)
        async with AsyncExitStack() as stack:
            remote = RemoteFiles(await stack.enter_async_context(self._options.client()), self._repository)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for blob in missing:
                group.create_task(self._fetch(remote, blob))

    def _look_up(self, file: RepositoryFile) -> _Blob:
        if self.cache.has_blob(file.etag, file.size):
            remove_part(self.cache.part(file.etag))  # a kill between the rename and the clean-up leaves it
            return _Blob(file, file.size, done=True)
        return _Blob(file, bytes_on_disk(self.cache.part(file.etag), file.size), done=False)

    def _check_disk(self, missing: list[_Blob]) -> None:
        needed = sum(blob.file.size - blob.bytes_done for blob in missing)
        free = self._options.free_bytes(self.cache.root)
        if needed and free < needed + self._options.disk_margin_bytes:
            short = needed + self._options.disk_margin_bytes - free
            raise FinalFailure(
                f"{self._repository.model} needs {format_bytes(needed)} more on disk, and "
                f"{format_bytes(self._options.disk_margin_bytes)} to spare; {format_bytes(free)} are free",
                f"Free {format_bytes(short)} where {self.cache.root} is, or set HF_HOME to a larger disk, then launch "
                "again.",
            )

    async def _fetch(self, remote: RemoteFiles, blob: _Blob) -> None:
        async with self._open_files:
            folder = self.cache.part(blob.file.etag)
            while not self.cache.has_blob(blob.file.etag, blob.file.size):
                try:
                    with open_part(folder, blob.file.size, self._options.range_bytes) as blob.part:
                        try:
                            if not self.cache.has_blob(blob.file.etag, blob.file.size):  # not while we waited
                                await self._fill_and_verify(remote, blob, blob.part)
                        finally:
                            blob.leave()
                except PartBusy:
                    self.trouble = f"waiting for another download of {blob.file.path}"
                    await asyncio.sleep(_BUSY_POLL_S)
            blob.done = True
            remove_part(folder)

    async def _fill_and_verify(self, remote: RemoteFiles, blob: _Blob, part: Part) -> None:
        if await self._fill(remote, blob, part) != blob.file.etag:
            part.restart()  # left by a power failure, or spoiled on the way: worth one more try
            if await self._fill(remote, blob, part) != blob.file.etag:
                part.restart()
                raise FinalFailure(
                    f"{blob.file.path} arrived twice with a wrong checksum; the hub expects {blob.file.etag}",
                    "Check for a proxy that changes files, or tell the hub's operator; then launch again.",
                )
        await asyncio.to_thread(self.cache.add_blob, blob.file.etag, part.data_path)

    async def _fill(self, remote: RemoteFiles, blob: _Blob, part: Part) -> str:
        """Fetch what is missing of ``part``; returns the checksum of the whole."""
        checksum = Checksum(part, blob.file.sha256)
        queue = deque(part.missing)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(queue), self._options.connections)):
                group.create_task(self._lane(remote, blob.file, part, queue, checksum))
            digest = group.create_task(checksum.follow())
        return digest.result()

    async def _lane(
        self, remote: RemoteFiles, file: RepositoryFile, part: Part, queue: deque[Range], checksum: Checksum
    ) -> None:
        while queue:
            wanted = queue.popleft()
            async with self._connections:
                await self._fetch_range(remote, file, part, wanted)
            checksum.part_has_grown()

    async def _fetch_range(self, remote: RemoteFiles, file: RepositoryFile, part: Part, wanted: Range) -> None:
        failures = 0
        while wanted.missing:
            before = wanted.written
            try:
                async with aclosing(remote.stream(file, wanted.position, wanted.stop)) as chunks:
                    async for chunk in chunks:
                        if len(chunk) > wanted.missing:
                            raise TransientFailure(f"the hub sent more of {file.path} than was asked for")
                        part.write(wanted, chunk)
                        self.trouble = None
                if wanted.missing:
                    raise TransientFailure(f"the hub ended {file.path} too early")
            except TransientFailure as failure:
                failures = 1 if wanted.written - before >= _PROGRESS_BYTES else failures + 1
                self.trouble = failure.reason
                wait = failure.retry_after_s or 0.0
                if failures >= self._options.backoff.attempts or wait > _LONGEST_WAIT_S:
                    raise
                await asyncio.sleep(self._options.backoff.delay_s(failures, wait))
