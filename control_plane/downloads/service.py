"""The rules of downloads: one per commit, shared; asked for again after a failure; cancelled when nobody wants it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from control_plane import database
from control_plane.context import Context
from control_plane.downloads import repository
from control_plane.downloads.cache_layout import ModelCache
from control_plane.downloads.failures import TransientFailure
from control_plane.downloads.retry import LONGEST_PAUSE, Backoff
from control_plane.downloads.schemas import DownloadProgress, FileProgress
from control_plane.downloads.selection import select_files
from control_plane.downloads.tables import FINAL_STATES, Download, DownloadFile, DownloadState
from control_plane.errors import Invalid
from control_plane.hub.ids import ModelId, is_commit_sha
from control_plane.hub.source import RepositoryFile

#: Tasks: fetch onto our own storage; look after an agent that fetches elsewhere.
RUN, DRIVE = "downloads.run", "downloads.drive"

#: A worker that dies is replaced after this long at the latest.
LEASE = timedelta(seconds=15)
#: Longer than a look at an agent lasts.
AGENT_LEASE = timedelta(seconds=60)


@dataclass(frozen=True)
class Place:
    """Storage that is not ours: ``location`` names it, replicas of ``provider`` on ``hardware`` read it."""

    location: str
    provider: str
    hardware: str


def ensure_download(
    session: Session,
    context: Context,
    *,
    endpoint: str,
    model: str,
    commit_sha: str,
    files: Iterable[RepositoryFile],
    place: Place | None = None,
    has_chat_template: bool | None = None,
) -> Download:
    """The download of a commit: the one that is there, or a new one; a worker is told once this is committed.

    One that failed, was cancelled, or whose files have since vanished from disk is queued again; bytes that are on disk
    are not fetched again.

    :param files: what the repository holds at ``commit_sha``; which of them are fetched is decided here.
    :param place: where an agent is to bring it; None for the storage that this machine and the replicas share.
    :param has_chat_template: whether the model brings one, if that is known.
    :raises Invalid: no safetensors, an unsafe file name, no checksum, or not a commit.
    """
    ModelId.parse(model)
    if not is_commit_sha(commit_sha):
        raise Invalid(f"{commit_sha[:100]!r} is not a commit SHA", "Resolve the revision first.")
    listing = select_files(files)
    download, created = _find_or_insert(session, context, endpoint, model, commit_sha, place)
    cache = ModelCache(context.settings.hub_cache, model)
    if place is None and download.state == DownloadState.DONE and cache.is_complete(commit_sha, listing):
        download.path = str(cache.snapshot(commit_sha))  # the cache may have moved
    elif created or download.state in FINAL_STATES:
        _queue(session, context, download, listing)
    download.cancel_requested = False
    download.has_chat_template = has_chat_template
    session.add(download)
    return download


def cancel(session: Session, context: Context, download: Download) -> bool:
    """Stop a download that no live instance wants any more; True if it is stopped or about to be.

    What was fetched stays on disk. A worker or an agent that is at it notices within a second.
    """
    session.flush()  # the caller's instance no longer counts once its new phase or desire is visible to the query
    current = repository.find(session, download.endpoint, download.model, download.commit_sha, download.location)
    if current is None or current.state in FINAL_STATES or repository.instances_using(session, current.id):
        return False
    now = context.clock.now()
    unheld = current.lease_token is None or current.lease_expires_at is None or current.lease_expires_at < now
    if current.location or unheld:  # an agent holds no lease: its next report is answered with "cancel"
        end(current, context, DownloadState.CANCELLED, reason="cancelled: no instance wants it any more")
        current.lease_token = None  # a worker that was merely slow finds its lease lost
        if current.location:
            database.after_commit(session, lambda: context.hint(DRIVE, current.id))
    else:
        current.cancel_requested = True
    session.add(current)
    return True


def end(
    download: Download,
    context: Context,
    state: DownloadState,
    *,
    reason: str | None = None,
    next_step: str | None = None,
) -> None:
    """Put ``download`` into one of the final states."""
    download.state, download.reason, download.next_step = state, reason, next_step
    download.finished_at = context.clock.now()
    # An agent that may still be there has to be removed.
    download.next_attempt_at = context.clock.now() if download.boot_token else None
    download.cancel_requested = False
    download.bytes_per_s = 0.0


def note_vanished(session: Session, context: Context, download_id: UUID) -> None:
    """What a download brought is not where it was any more: whoever asks for it next has it fetched again."""
    download = repository.get(session, download_id)
    if download is not None and download.state == DownloadState.DONE:
        reason = f"the files have vanished from {download.location or 'the cache'}"
        end(download, context, DownloadState.FAILED, reason=reason, next_step="Start an instance of it again.")
        session.add(download)


def sweep(context: Context, *, limit: int = 100) -> list[UUID]:
    """Send a hint for every download that waits for a worker, or whose agent wants looking after; returns their ids."""
    now = context.clock.now()
    with context.database.reading() as session:
        waiting = repository.due(session, now, LEASE, limit)
        unattended = repository.agents_due(session, now, AGENT_LEASE, limit)
    for download_id in waiting:
        context.hint(RUN, download_id)
    for download_id in unattended:
        context.hint(DRIVE, download_id)
    return [*waiting, *unattended]


def find_progress(session: Session, context: Context, download_id: UUID) -> DownloadProgress | None:
    """:func:`progress` of a download by its id."""
    download = repository.get(session, download_id)
    return progress(context, download, repository.files(session, download_id)) if download else None


def progress(context: Context, download: Download, files: Sequence[DownloadFile]) -> DownloadProgress:
    """What a person wants to know: bytes, rate, time left, and whether it moves at all."""
    still_s = _still_for_s(context, download)
    stalled = still_s is not None and still_s >= context.settings.stall_after_s
    rate = 0.0 if stalled or download.state != DownloadState.DOWNLOADING else download.bytes_per_s
    left = None if download.bytes_total is None else download.bytes_total - download.bytes_done
    return DownloadProgress(
        id=download.id,
        model=download.model,
        commit_sha=download.commit_sha,
        state=download.state,
        reason=_stalled_reason(download, still_s) if stalled and still_s is not None else download.reason,
        next_step=download.next_step,
        bytes_done=download.bytes_done,
        bytes_total=download.bytes_total,
        bytes_per_s=rate,
        eta_s=left / rate if left is not None and rate > 0 else None,
        stalled=stalled,
        stalled_for_s=still_s if stalled else None,
        files=[
            FileProgress(path=f.path, bytes_done=f.bytes_done, bytes_total=f.bytes_total, state=f.state) for f in files
        ],
    )


def _still_for_s(context: Context, download: Download) -> float | None:
    """Seconds since a byte arrived, or since one could have; None where none is expected."""
    if download.state not in {DownloadState.QUEUED, DownloadState.DOWNLOADING}:
        return None
    moments = [at for at in (download.progress_at, download.started_at, download.queued_at) if at is not None]
    return (context.clock.now() - max(moments)).total_seconds()


def _stalled_reason(download: Download, still_s: float) -> str:
    if download.started_at is None:
        if download.location:
            return download.reason or f"waiting for an agent for {still_s:.0f} s"
        return f"waiting for a worker for {still_s:.0f} s"
    why = f" ({download.reason})" if download.reason else ""
    return f"stalled for {still_s:.0f} s: retrying{why}"


def _find_or_insert(
    session: Session, context: Context, endpoint: str, model: str, commit_sha: str, place: Place | None
) -> tuple[Download, bool]:
    location = place.location if place else ""
    if found := repository.find(session, endpoint, model, commit_sha, location):
        if place:  # the offer that was there the last time may be gone; what reads the same storage will do
            found.provider, found.hardware = place.provider, place.hardware
        return found, False
    now = context.clock.now()
    download = Download(endpoint=endpoint, model=model, commit_sha=commit_sha, created_at=now, queued_at=now)
    if place:
        download.location, download.provider, download.hardware = location, place.provider, place.hardware
    try:
        with session.begin_nested():
            session.add(download)
    except IntegrityError:  # another transaction was quicker; it is committed by now
        found = repository.find(session, endpoint, model, commit_sha, location)
        if found is None:
            raise
        return found, False
    return download, True


def _queue(session: Session, context: Context, download: Download, listing: Sequence[RepositoryFile]) -> None:
    now = context.clock.now()
    download.state = DownloadState.QUEUED
    download.reason = download.next_step = download.path = None
    download.started_at = download.finished_at = download.progress_at = None
    download.queued_at = download.next_attempt_at = now
    download.attempts, download.bytes_done, download.bytes_per_s = 0, 0, 0.0
    if download.location:
        download.boot_token = new_boot_token()
    repository.replace_files(session, download, listing)
    session.add(download)
    database.after_commit(session, lambda: context.hint(DRIVE if download.location else RUN, download.id))


def new_boot_token() -> str:
    """128 random bits: which agent may report."""
    return secrets.token_hex(16)


def pauses(download: Download, now: datetime) -> bool:
    """Whether its next attempt is to come later; see :func:`repository.is_due` for a clock that was set back."""
    at = download.next_attempt_at
    return at is not None and now < at <= now + LONGEST_PAUSE


def put_off(context: Context, download: Download, failure: TransientFailure, backoff: Backoff, *, moved: bool) -> None:
    """After a failure that may pass: wait longer each time, and give up after enough attempts without a new byte.

    :param moved: whether this attempt brought new bytes.
    """
    download.attempts = 1 if moved else download.attempts + 1
    if download.attempts >= backoff.attempts:
        reason = f"{failure.reason}; given up after {backoff.attempts} attempts without a new byte"
        end(download, context, DownloadState.FAILED, reason=reason, next_step=failure.next_step)
        return
    wait_s = min(backoff.delay_s(download.attempts, failure.retry_after_s), LONGEST_PAUSE.total_seconds())
    download.state = DownloadState.QUEUED
    download.reason = f"{failure.reason}; attempt {download.attempts + 1} of {backoff.attempts} follows"
    download.next_attempt_at = context.clock.now() + timedelta(seconds=wait_s)
