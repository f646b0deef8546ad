"""How the control plane itself is doing: which of its processes live, and whether work waits that nobody takes up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session

from control_plane.context import Context
from control_plane.processes import repository
from control_plane.processes.schemas import Backlog, ProcessState, ProcessView, WorkersView
from control_plane.processes.tables import ProcessHeartbeat, ProcessKind

#: Three beats that did not come.
STALE_AFTER_S = 35.0
#: A process that was silent for so long was killed; what starts it has long started another.
ENDED_AFTER_S = 600.0
#: While a scheduler ticks every few seconds, a worker that took no task for so long takes none.
IDLE_AFTER_S = 60.0


def workers(context: Context) -> WorkersView:
    """Every process, and the backlog."""
    with context.database.reading() as session:
        return read_workers(session, context.clock.now())


def read_workers(session: Session, now: datetime) -> WorkersView:
    """:func:`workers`, in a session."""
    rows = repository.processes(session)
    backlog = Backlog(
        instances=repository.unclaimed_instances(session, now),
        downloads=repository.unclaimed_downloads(session, now),
        older_than_s=repository.UNCLAIMED_AFTER.total_seconds(),
    )
    return WorkersView(items=_views(rows, now), waiting=backlog)


def _views(rows: Sequence[ProcessHeartbeat], now: datetime) -> list[ProcessView]:
    ticking = any(row.kind == ProcessKind.SCHEDULER and _age_s(row, now) < STALE_AFTER_S for row in rows)
    return [_view(row, now, ticking=ticking) for row in rows]


def _view(row: ProcessHeartbeat, now: datetime, *, ticking: bool) -> ProcessView:
    age_s = _age_s(row, now)
    state, words = ProcessState.ALIVE, f"{row.name} is alive"
    if age_s >= STALE_AFTER_S:
        state = ProcessState.ENDED if age_s >= ENDED_AFTER_S else ProcessState.SILENT
        words = f"{row.name} was last seen {age_s:.0f} s ago"
    elif row.kind == ProcessKind.WORKER and ticking:
        idle_s = (now - (row.last_task_at or row.started_at)).total_seconds()
        if idle_s >= IDLE_AFTER_S:
            state = ProcessState.IDLE
            words = f"{row.name} is alive and took no task for {idle_s:.0f} s: it may have lost the broker; restart it"
    return ProcessView.model_validate(row, from_attributes=True).model_copy(
        update={"age_s": age_s, "state": state, "words": words}
    )


def _age_s(row: ProcessHeartbeat, now: datetime) -> float:
    return max(0.0, (now - row.seen_at).total_seconds())
