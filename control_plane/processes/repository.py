"""Every query about our processes, and about the work that waits for them."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, or_
from sqlmodel import Session, col, select

from control_plane.downloads.tables import FINAL_STATES, Download
from control_plane.instances.tables import Instance
from control_plane.processes.tables import ProcessHeartbeat

#: A row that is due for so long and that nobody has claimed is not on anybody's way.
UNCLAIMED_AFTER = timedelta(seconds=60)
_FORGET_AFTER = timedelta(days=1)


def processes(session: Session) -> list[ProcessHeartbeat]:
    """Every process that was seen within the last day, by kind and name."""
    order = (col(ProcessHeartbeat.kind), col(ProcessHeartbeat.name))
    return list(session.exec(select(ProcessHeartbeat).order_by(*order)))


def forget(session: Session, now: datetime) -> None:
    """Remove processes that were last seen more than a day ago."""
    session.execute(delete(ProcessHeartbeat).where(col(ProcessHeartbeat.seen_at) < now - _FORGET_AFTER))


def unclaimed_instances(session: Session, now: datetime) -> int:
    """Instances that have been due for too long without anybody looking at them."""
    query = select(func.count()).select_from(Instance).where(_is_unclaimed(Instance, now))
    return session.exec(query).one()


def unclaimed_downloads(session: Session, now: datetime) -> int:
    """The same of downloads that are a worker's own business."""
    mine = (Download.location == "", col(Download.state).not_in(FINAL_STATES))
    return session.exec(select(func.count()).select_from(Download).where(_is_unclaimed(Download, now), *mine)).one()


def _is_unclaimed(table: type[Instance] | type[Download], now: datetime) -> ColumnElement[bool]:
    free = or_(col(table.lease_token).is_(None), col(table.lease_expires_at) < now)
    return (col(table.next_attempt_at) < now - UNCLAIMED_AFTER) & free
