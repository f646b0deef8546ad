"""Every query about downloads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, or_, update
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import Session, col, select

from control_plane.downloads.retry import LONGEST_PAUSE
from control_plane.downloads.tables import FINAL_STATES, Download, DownloadFile, DownloadState
from control_plane.hub.source import RepositoryFile
from control_plane.instances.lifecycle import Phase
from control_plane.instances.tables import Desired, Instance
from control_plane.leases import is_free

#: States in which a worker has something to do.
ACTIVE_STATES = frozenset(DownloadState) - FINAL_STATES

#: Phases in which an instance uses the weights, or waits for them.
_USING = (Phase.REQUESTED, Phase.DOWNLOADING, Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING, Phase.SLEEPING)


def get(session: Session, download_id: UUID) -> Download | None:
    """A download as it is now."""
    return session.get(Download, download_id)


def find(session: Session, endpoint: str, model: str, commit_sha: str, location: str = "") -> Download | None:
    """The one download of a commit to a place, locked until the end of the transaction."""
    return session.exec(
        select(Download)
        .where(
            Download.endpoint == endpoint,
            Download.model == model,
            Download.commit_sha == commit_sha,
            Download.location == location,
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    ).first()


def files(session: Session, download_id: UUID) -> list[DownloadFile]:
    """Its files, in the order of their paths."""
    statement = select(DownloadFile).where(DownloadFile.download_id == download_id).order_by(DownloadFile.path)
    return list(session.exec(statement))


def replace_files(session: Session, download: Download, listing: Iterable[RepositoryFile]) -> None:
    """Make ``listing`` the files of ``download`` and their sum its size."""
    session.execute(delete(DownloadFile).where(col(DownloadFile.download_id) == download.id))
    rows = [
        DownloadFile(download_id=download.id, path=file.path, etag=file.etag, sha256=file.sha256, bytes_total=file.size)
        for file in listing
    ]
    session.add_all(rows)
    download.bytes_total = sum(row.bytes_total for row in rows)


def due(session: Session, now: datetime, lease: timedelta, limit: int) -> list[UUID]:
    """Downloads onto our own storage that a worker should take up: waiting, or left by a worker that died."""
    waiting = or_(col(Download.next_attempt_at).is_(None), is_due(now))
    query = select(Download.id).where(
        Download.location == "", col(Download.state).in_(ACTIVE_STATES), waiting, is_free(Download, now, lease)
    )
    return list(session.exec(query.order_by(col(Download.created_at)).limit(limit)))


def find_for_update(session: Session, download_id: UUID) -> Download | None:
    """A download, read anew and locked until the end of the transaction."""
    query = select(Download).where(Download.id == download_id).with_for_update()
    return session.exec(query.execution_options(populate_existing=True)).one_or_none()


def agents_due(session: Session, now: datetime, lease: timedelta, limit: int) -> list[UUID]:
    """Downloads elsewhere whose agent somebody should look after: to be started, silent, or to be removed."""
    query = select(Download.id).where(Download.location != "", is_due(now), is_free(Download, now, lease))
    return list(session.exec(query.order_by(col(Download.next_attempt_at)).limit(limit)))


def is_due(now: datetime) -> ColumnElement[bool]:
    """The condition that a pause is over; one that is longer than any began before the clock was set back."""
    at = col(Download.next_attempt_at)
    return or_(at <= now, at > now + LONGEST_PAUSE)


def instances_using(session: Session, download_id: UUID) -> list[UUID]:
    """Ids of live instances that serve these weights or wait for them."""
    return list(
        session.exec(
            select(Instance.id).where(
                Instance.download_id == download_id,
                Instance.desired == Desired.RUNNING,
                col(Instance.phase).in_(_USING),
            )
        )
    )


def revisions(session: Session, download_id: UUID) -> list[str]:
    """The branches and tags under which instances asked for this commit."""
    return list(session.exec(select(Instance.revision).where(Instance.download_id == download_id).distinct()))


def write_progress(session: Session, download_id: UUID, token: UUID, values: Mapping[str, Any]) -> bool | None:
    """Update the row if ``token`` still holds it.

    :return: whether somebody asked for it to be cancelled; None, and nothing written, when the lease is lost.
    """
    result = session.execute(
        update(Download)
        .where(col(Download.id) == download_id, col(Download.lease_token) == token)
        .values(**values)
        .returning(col(Download.cancel_requested)),
        execution_options={"synchronize_session": False},
    )
    return result.scalar_one_or_none()


def files_named(session: Session, download_id: UUID, paths: Iterable[str]) -> list[DownloadFile]:
    """Those of its files that ``paths`` names."""
    query = select(DownloadFile).where(DownloadFile.download_id == download_id, col(DownloadFile.path).in_(list(paths)))
    return list(session.exec(query))


def write_file_progress(session: Session, download_id: UUID, progress: Mapping[str, tuple[int, DownloadState]]) -> None:
    """Update bytes and state of the files named in ``progress`` (by path)."""
    for path, (bytes_done, state) in progress.items():
        session.execute(
            update(DownloadFile)
            .where(col(DownloadFile.download_id) == download_id, col(DownloadFile.path) == path)
            .values(bytes_done=bytes_done, state=state),
            execution_options={"synchronize_session": False},
        )
