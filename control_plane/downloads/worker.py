"""One download, from the claim of its row to the result in it.

::

    claim ──► transfer (no session) ──────────────────────────► apply, if the lease is still ours
                 │        every half second: progress, lease,
                 └──────► is it cancelled? is the lease lost?   one short transaction
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from pathlib import Path
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from control_plane import leases
from control_plane.context import Context
from control_plane.database import after_commit
from control_plane.downloads import repository, service
from control_plane.downloads.failures import TransferFailure, TransientFailure, explain
from control_plane.downloads.rate import RateMeter
from control_plane.downloads.remote import Repository
from control_plane.downloads.retry import Backoff
from control_plane.downloads.tables import FINAL_STATES, Download, DownloadState
from control_plane.downloads.transfer import Transfer, TransferOptions
from control_plane.hub.source import RepositoryFile

logger = logging.getLogger(__name__)


_BACKOFF = Backoff(attempts=5, first_s=2.0, longest_s=60.0)


class Stop(Enum):
    """Why a transfer is stopped from outside."""

    CANCELLED = auto()
    LEASE_LOST = auto()
    SHUTDOWN = auto()


#: How a transfer ended: the snapshot's folder, a failure, or stopped from outside.
Outcome = Path | TransferFailure | Stop


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker treats its row."""

    transfer: TransferOptions = field(default_factory=TransferOptions)
    lease: timedelta = service.LEASE
    #: Seconds between two writes of progress, each of which also extends the lease.
    report_interval_s: float = 0.5
    #: Attempts of the whole download without a new byte, and the waits between them.
    backoff: Backoff = _BACKOFF


@dataclass(frozen=True)
class Job:
    """What was claimed."""

    id: UUID
    lease_token: UUID
    repository: Repository
    files: tuple[RepositoryFile, ...]


@dataclass
class Report:
    """What the row says already, so that only changes are written."""

    meter: RateMeter
    bytes_done: int
    lease_until: datetime
    files: dict[str, tuple[int, DownloadState]] = field(default_factory=dict)


class DownloadWorker:
    """Runs downloads, one call each; any number may run at once, in any number of processes.

    :param shutdown: set when the process is about to end: downloads stop and are left for others to take up.
    """

    def __init__(
        self, context: Context, shutdown: threading.Event | None = None, options: WorkerOptions | None = None
    ) -> None:
        self._context = context
        self._shutdown = shutdown or threading.Event()
        self._options = options or WorkerOptions()

    def run(self, download_id: UUID) -> None:
        """Take a download up and bring it as far as possible; does nothing if it is not due or somebody else has it."""
        if job := self._claim(download_id):
            asyncio.run(self._work(job))

    # Claim.

    def _claim(self, download_id: UUID) -> Job | None:
        now = self._context.clock.now()
        with self._context.database.transaction() as session:
            token = leases.claim(session, Download, download_id, now=now, lease=self._options.lease)
            download = repository.get(session, download_id) if token else None
            if token is None or download is None:
                return None
            if download.state in FINAL_STATES or service.pauses(download, now) or download.cancel_requested:
                if download.cancel_requested:
                    service.end(download, self._context, DownloadState.CANCELLED, reason="cancelled")
                leases.release(session, Download, download_id, token)
                return None
            download.state = DownloadState.DOWNLOADING
            download.started_at = download.started_at or now
            download.next_attempt_at = None
            files = repository.files(session, download_id)
        settings = self._context.settings
        hub_token = settings.hub_token if download.endpoint == settings.hub_endpoint else None
        return Job(
            download_id,
            token,
            Repository(download.endpoint, download.model, download.commit_sha, hub_token),
            tuple(RepositoryFile(file.path, file.bytes_total, file.etag, file.sha256) for file in files),
        )

    # Work.

    async def _work(self, job: Job) -> None:
        settings = self._context.settings
        try:
            transfer = Transfer(
                job.repository, job.files, settings.hub_cache, self._options.transfer, offline=settings.hub_offline
            )
        except OSError as error:
            self._apply(job, _as_failure(error), None, had=0)
            return
        had = transfer.bytes_done
        outcome = await self._transfer(job, transfer)
        if outcome is not Stop.LEASE_LOST:
            await asyncio.to_thread(self._apply, job, outcome, transfer, had=had)

    async def _transfer(self, job: Job, transfer: Transfer) -> Outcome:
        """Run ``transfer`` beside its reports; a reason to stop ends it at once."""
        now = self._context.clock.now()
        report = Report(RateMeter(now, transfer.bytes_done), transfer.bytes_done, now + self._options.lease)
        work = asyncio.create_task(self._fetch(job, transfer))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=self._options.report_interval_s)
                stop = Stop.SHUTDOWN if self._shutdown.is_set() else await self._report(job, transfer, report)
                if stop and not work.done():
                    return stop
            return work.result()
        except Exception as error:
            return _as_failure(error)
        finally:
            work.cancel()
            await asyncio.wait({work})

    async def _fetch(self, job: Job, transfer: Transfer) -> Path:
        snapshot = await transfer.run()
        await asyncio.to_thread(self._set_refs, job, transfer)
        return snapshot

    def _set_refs(self, job: Job, transfer: Transfer) -> None:
        with self._context.database.reading() as session:
            revisions = repository.revisions(session, job.id)
        for revision in revisions:
            transfer.cache.set_ref(revision, job.repository.commit_sha)

    # Report.

    async def _report(self, job: Job, transfer: Transfer, report: Report) -> Stop | None:
        now = self._context.clock.now()
        progress = transfer.progress()  # here, not in the thread: the event loop changes it
        try:
            return await asyncio.to_thread(self._write_report, job, transfer, report, now, progress)
        except DBAPIError:
            # The bytes do not need the database; the lease does.
            logger.warning("the progress of download %s could not be written", job.id, exc_info=True)
            return Stop.LEASE_LOST if now >= report.lease_until else None

    def _write_report(
        self,
        job: Job,
        transfer: Transfer,
        report: Report,
        now: datetime,
        progress: dict[str, tuple[int, DownloadState]],
    ) -> Stop | None:
        bytes_done = sum(done for done, _ in progress.values())
        values = {
            "lease_expires_at": now + self._options.lease,
            "state": transfer.state,
            "bytes_done": bytes_done,
            "bytes_per_s": report.meter.add(now, bytes_done),
        }
        if bytes_done > report.bytes_done:
            values |= {"progress_at": now, "reason": None}
        elif transfer.trouble:
            values["reason"] = transfer.trouble[:2000]
        changed = {path: entry for path, entry in progress.items() if report.files.get(path) != entry}
        with self._context.database.transaction() as session:
            cancel_requested = repository.write_progress(session, job.id, job.lease_token, values)
            if cancel_requested is None:
                return Stop.LEASE_LOST
            repository.write_file_progress(session, job.id, changed)
        report.bytes_done, report.lease_until = bytes_done, now + self._options.lease
        report.files |= changed
        return Stop.CANCELLED if cancel_requested else None

    # Apply.

    def _apply(self, job: Job, outcome: Outcome, transfer: Transfer | None, *, had: int) -> None:
        with self._context.database.transaction() as session:
            held = leases.release(session, Download, job.id, job.lease_token)  # first: it locks the row
            download = repository.get(session, job.id) if held else None
            if download is None:
                logger.info("download %s is in other hands now; what was fetched is kept for them", job.id)
                return
            moved = False
            if transfer is not None:
                moved = transfer.bytes_done > had
                download.bytes_done = transfer.bytes_done
                repository.write_file_progress(session, job.id, transfer.progress())
            download.bytes_per_s = 0.0
            self._conclude(session, download, outcome, moved=moved)
            session.add(download)
            if download.state in FINAL_STATES:
                for instance_id in repository.instances_using(session, job.id):
                    self._hint_after_commit(session, "instances.reconcile", instance_id)

    def _conclude(self, session: Session, download: Download, outcome: Outcome, *, moved: bool) -> None:
        if isinstance(outcome, Path):
            download.path = str(outcome)
            service.end(download, self._context, DownloadState.DONE)
        elif isinstance(outcome, TransientFailure):
            service.put_off(self._context, download, outcome, self._options.backoff, moved=moved)
        elif isinstance(outcome, TransferFailure):
            service.end(
                download, self._context, DownloadState.FAILED, reason=outcome.reason, next_step=outcome.next_step
            )
        elif outcome is Stop.CANCELLED and download.cancel_requested:
            service.end(download, self._context, DownloadState.CANCELLED, reason="cancelled")
        else:  # shut down, or wanted again since
            download.state, download.reason = DownloadState.QUEUED, "the worker was stopped; the next one continues"
            download.next_attempt_at = self._context.clock.now()
            self._hint_after_commit(session, service.RUN, download.id)

    def _hint_after_commit(self, session: Session, task: str, row_id: UUID) -> None:
        after_commit(session, lambda: self._context.hint(task, row_id))


def _as_failure(error: Exception) -> TransferFailure:
    """What to tell about ``error``; one that nobody foresaw is logged and tried again."""
    failure = explain(error)
    if failure is None:
        logger.error("a download failed in a way nobody foresaw", exc_info=error)
        failure = TransientFailure(
            f"an internal error ({type(error).__name__})", "Look at the worker's log and report what it says."
        )
    return failure
