"""Keeping a claim while its step takes long: a provider may need a minute for what usually takes a second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from control_plane import leases
from control_plane.context import Context
from control_plane.instances.tables import Instance

logger = logging.getLogger(__name__)

#: A step that takes longer hangs: let another worker try.
_AT_MOST_S = 600.0


@contextmanager
def kept(context: Context, instance_id: UUID, token: UUID, lease: timedelta) -> Iterator[None]:
    """Extend the lease from time to time while the block runs. A killed process extends nothing: its lease runs out."""
    done = threading.Event()
    interval_s = lease.total_seconds() / 3

    def keep() -> None:
        for _ in range(int(_AT_MOST_S / interval_s)):
            if done.wait(interval_s) or not _extend(context, instance_id, token, lease):
                return

    keeper = threading.Thread(target=keep, name="lease keeper", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def _extend(context: Context, instance_id: UUID, token: UUID, lease: timedelta) -> bool:
    try:
        with context.database.transaction() as session:
            return leases.extend(session, Instance, instance_id, token, now=context.clock.now(), lease=lease)
    except DBAPIError:
        logger.warning("the lease of instance %s could not be extended", instance_id, exc_info=True)
        return True
