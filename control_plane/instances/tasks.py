"""Celery's entry points: hints come in here."""

from __future__ import annotations

import logging
import time
from uuid import UUID

from control_plane.celery_app import ROUTINE, celery_app, hints_waiting
from control_plane.context import get_context
from control_plane.instances import reconcile as reconciler

logger = logging.getLogger(__name__)

#: With so many hints that nobody has taken, most rows that are due have one there: more of them would only pile up.
MANY_HINTS = 100
#: Those get theirs even then: where the queue never empties, a row whose hint was lost comes first some time.
LONGEST_WAITING = 20
#: Steps of one instance that follow each other without a pause are done at once: more than a launch has.
_STEPS_AT_ONCE = 6


class Pace:
    """Ticks of a clock that were sent while nobody listened, and come all at once, count as one."""

    def __init__(self) -> None:
        self._not_before_s = 0.0

    def is_due(self, interval_s: float) -> bool:
        """Whether half the interval has passed since this last said so."""
        now_s = time.monotonic()
        if now_s < self._not_before_s:
            return False
        self._not_before_s = now_s + interval_s / 2
        return True


_pace = Pace()


@celery_app.task(name="instances.reconcile")  # type: ignore[untyped-decorator]
def reconcile(instance_id: str) -> None:
    """Do the steps that are due for an instance, and come back when the next one is, if that is before the sweep."""
    context, pause_s = get_context(), None
    for _ in range(_STEPS_AT_ONCE):
        pause_s = reconciler.reconcile(context, UUID(instance_id))
        if pause_s != 0.0:
            break
    if pause_s is None or pause_s >= context.settings.sweep_interval_s:
        return
    try:
        reconcile.apply_async((instance_id,), countdown=pause_s, priority=ROUTINE)
    except Exception:
        logger.warning("a hint could not be sent; the sweep will find the row", exc_info=True)


@celery_app.task(name="instances.sweep")  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Find the instances that nobody looks after: all of them, unless workers are behind with hints they have."""
    context = get_context()
    if not _pace.is_due(context.settings.sweep_interval_s):
        return
    is_behind = hints_waiting(celery_app) > MANY_HINTS
    reconciler.sweep(context, at_most=LONGEST_WAITING if is_behind else None)
