"""An engine that refuses or breaks off is looked at now, not when its next look is due."""

from __future__ import annotations

import logging
import threading
import time
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from control_plane.context import Context
from control_plane.database import after_commit
from control_plane.instances import repository
from control_plane.instances.change import RECONCILE

logger = logging.getLogger(__name__)

#: One look at an instance tells as much as ten: callers that try again and again must not busy the database.
_PAUSE_S = 1.0
_MOST = 1000

_lock = threading.Lock()
_told: dict[UUID, float] = {}


def suspect(context: Context, instance_id: UUID) -> None:
    """Have an instance looked at. Blocks on the database; while that is away nothing happens."""
    now = time.monotonic()
    with _lock:
        if now - _told.get(instance_id, -_PAUSE_S) < _PAUSE_S:
            return
        if len(_told) >= _MOST:
            _told.clear()
        _told[instance_id] = now
    try:
        with context.database.transaction() as session:
            if repository.wake(session, instance_id, context.clock.now()):
                after_commit(session, lambda: context.hint(RECONCILE, instance_id))
    except SQLAlchemyError:
        logger.warning("the database does not answer: instance %s is looked at later", instance_id)
