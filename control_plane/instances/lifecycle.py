"""The phases of an instance, the moves between them, and the one function that makes a move."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import Session

from control_plane.audit import repository as audit
from control_plane.clock import Clock
from control_plane.errors import Conflict
from control_plane.instances.tables import Instance


class Phase(StrEnum):
    """Where an instance stands.

    ::

        requested ─► downloading ─► provisioning ─► starting ─► running ◄─► sleeping
            │             │              │              │          │            │
            └─────────────┴──────┬───────┴──────────────┴──────────┴────────────┘
                                 ├─► failed (reason, what to do) ─► requested (retry)
                                 ├─► stopping ─► stopped ─► requested (start again, weights kept)
                                 └─► terminating ─► terminated (only when the provider has said "absent" twice)

        Also: running ─► provisioning (no engine is left, or all were asked to be replaced at once; weights are here).

    The owner of each arc is the reconciler of the phase it leaves (``reconcilers/<phase>.py``); the arcs into
    stopping, terminating and requested belong to the user (``service.py``), by way of ``desired``.
    """

    REQUESTED = "requested"
    DOWNLOADING = "downloading"
    PROVISIONING = "provisioning"
    STARTING = "starting"
    RUNNING = "running"
    SLEEPING = "sleeping"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


_UNDER_WAY = {Phase.REQUESTED, Phase.DOWNLOADING, Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING, Phase.SLEEPING}
_EXITS = {Phase.FAILED, Phase.STOPPING, Phase.TERMINATING}

LEGAL_MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.REQUESTED: frozenset({Phase.DOWNLOADING, Phase.PROVISIONING, *_EXITS}),
    Phase.DOWNLOADING: frozenset({Phase.PROVISIONING, *_EXITS}),
    Phase.PROVISIONING: frozenset({Phase.STARTING, *_EXITS}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.PROVISIONING, *_EXITS}),
    Phase.RUNNING: frozenset({Phase.SLEEPING, Phase.PROVISIONING, *_EXITS}),
    Phase.SLEEPING: frozenset({Phase.RUNNING, Phase.PROVISIONING, *_EXITS}),
    Phase.FAILED: frozenset({Phase.REQUESTED, Phase.STOPPING, Phase.TERMINATING}),
    Phase.STOPPING: frozenset({Phase.STOPPED, Phase.TERMINATING}),
    Phase.STOPPED: frozenset({Phase.REQUESTED, Phase.TERMINATING}),
    Phase.TERMINATING: frozenset({Phase.TERMINATED}),
    Phase.TERMINATED: frozenset(),
}

#: Phases in which the instance's replicas ought to run.
SERVING_PHASES = frozenset({Phase.PROVISIONING, Phase.STARTING, Phase.RUNNING, Phase.SLEEPING})
#: Phases in which a reconciler has work to do.
ACTIVE_PHASES = frozenset({*_UNDER_WAY, Phase.STOPPING, Phase.TERMINATING})


def legal_moves(phase: str) -> frozenset[Phase]:
    """Where ``phase`` can go; nowhere from one that a newer version wrote and this one does not know."""
    return LEGAL_MOVES.get(Phase(phase), frozenset()) if phase in set(Phase) else frozenset()


def transition(
    session: Session,
    clock: Clock,
    instance: Instance,
    to: Phase,
    *,
    reason: str,
    actor: str,
    next_step: str | None = None,
    next_attempt_at: datetime | None = None,
    **data: Any,
) -> None:
    """Move ``instance`` to ``to`` and write the audit event in the same transaction.

    :param reason: why, for a person; shown as the answer to "why is it pending?".
    :param next_attempt_at: when a reconciler looks next; by default now in an active phase, never in a resting one.
    :raises Conflict: the move is not legal.
    """
    origin = instance.phase
    if to not in legal_moves(origin):
        raise Conflict(f"an instance that is {origin} cannot become {to}", f"Wait until it is no longer {origin}.")
    now = clock.now()
    seconds = round(max(0.0, (now - instance.since).total_seconds()), 3)
    instance.phase = to
    instance.reason = reason[:2000]
    instance.next_step = next_step
    instance.since = now
    instance.attempts = 0
    instance.next_attempt_at = next_attempt_at or (now if to in ACTIVE_PHASES else None)
    session.add(instance)
    audit.record(
        session,
        clock,
        team_id=instance.team_id,
        actor=actor,
        action=f"instance.{to}",
        object_type="instance",
        object_id=instance.id,
        message=instance.reason,
        **{"from": str(origin), "to": str(to), "seconds_in_previous_phase": seconds, "next_step": next_step, **data},
    )
