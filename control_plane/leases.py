"""Claiming a row: exactly one worker works on it, and a dead worker's claim runs out.

A row with ``lease_owner``, ``lease_token``, ``lease_expires_at`` and ``next_attempt_at`` is a queue of its own::

    claim(row)  ──► token     short transaction
    … the step, with no database session …
    held(row, token)          in the transaction that applies the result: still mine? else drop the result
"""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID, uuid4

from sqlalchemy import CursorResult, or_, update
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import Session, col

#: How far the clocks of our machines may be apart. A lease that runs out later than it can have been made for, by more
#: than this, was made before the clock was set back, and counts as run out.
CLOCK_SKEW = timedelta(minutes=2)

#: Who this process is, for people who read the database.
OWNER = f"{socket.gethostname()}:{os.getpid()}"


class Leasable(Protocol):
    """A table whose rows can be claimed."""

    id: Any
    lease_owner: Any
    lease_token: Any
    lease_expires_at: Any


def claim(session: Session, table: type[Leasable], row_id: UUID, *, now: datetime, lease: timedelta) -> UUID | None:
    """Claim a row that nobody holds; None if somebody does, or it does not exist.

    :return: the token that :func:`held`, :func:`extend` and :func:`release` want.
    """
    token = uuid4()
    statement = (
        update(table)
        .where(col(table.id) == row_id, is_free(table, now, lease))
        .values(lease_owner=OWNER, lease_token=token, lease_expires_at=now + lease)
    )
    return token if _changed(session, statement) else None


def is_free(table: type[Leasable], now: datetime, lease: timedelta) -> ColumnElement[bool]:
    """The condition that nobody holds a row, where leases are made for ``lease``."""
    expires = col(table.lease_expires_at)
    return or_(col(table.lease_token).is_(None), expires < now, expires > now + lease + CLOCK_SKEW)


def extend(
    session: Session, table: type[Leasable], row_id: UUID, token: UUID, *, now: datetime, lease: timedelta
) -> bool:
    """Keep a claim alive; False when it was lost."""
    statement = (
        update(table)
        .where(col(table.id) == row_id, col(table.lease_token) == token)
        .values(lease_expires_at=now + lease)
    )
    return _changed(session, statement)


def release(session: Session, table: type[Leasable], row_id: UUID, token: UUID) -> bool:
    """Give a claim back; False when it was lost, and then nothing of the step may be kept: roll back."""
    statement = (
        update(table)
        .where(col(table.id) == row_id, col(table.lease_token) == token)
        .values(lease_owner=None, lease_token=None, lease_expires_at=None)
    )
    return _changed(session, statement)


def _changed(session: Session, statement: Any) -> bool:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return isinstance(result, CursorResult) and result.rowcount == 1
