"""The life of an orphan's row, from one listing to the next. No query, no network: rows are changed in place."""

from __future__ import annotations

from datetime import datetime, timedelta

from control_plane.providers.base import ReplicaStatus
from control_plane.reaper.match import Judgement, Verdict
from control_plane.reaper.tables import OPEN_STATES, Orphan, OrphanState

#: What is surely over is deleted when two listings this far apart have shown it: one of them may have been old.
SURE_AFTER = timedelta(seconds=20)
#: A listing can lag: gone is what two in a row do not show.
ABSENT_ENOUGH = 2
#: Who decides when no person does.
REAPER = "system:reaper"

_STATES = {Verdict.LEFTOVER: OrphanState.LEFTOVER, Verdict.UNKNOWN: OrphanState.UNKNOWN}


def see(orphan: Orphan | None, provider: str, status: ReplicaStatus, judgement: Judgement, now: datetime) -> Orphan:
    """Note that ``status`` was listed and that no row wants it; another boot of the same name begins anew."""
    if orphan is None or orphan.state not in OPEN_STATES or orphan.boot_token != status.boot_token:
        orphan = _begin(orphan, provider, status, judgement, now)
    if orphan.state != OrphanState.DELETING and orphan.state != _STATES[judgement.verdict]:
        orphan.state, orphan.first_seen_at = _STATES[judgement.verdict], now
    if orphan.last_seen_at > now:
        orphan.first_seen_at = now  # the clock went back: nothing is known of how long this lasts
    orphan.reason = judgement.reason[:2000]
    orphan.labels, orphan.node = dict(status.labels), status.node
    orphan.last_seen_at, orphan.absent_count = now, 0
    return orphan


def miss(orphan: Orphan, now: datetime, *, wanted: bool, exact: bool) -> None:
    """Note that it was not listed as unwanted any more.

    :param wanted: it was listed, and a row wants it.
    :param exact: one absence is enough here.
    """
    orphan.absent_count += 1
    if wanted or exact or orphan.absent_count >= ABSENT_ENOUGH:
        orphan.state, orphan.gone_at, orphan.trouble = OrphanState.GONE, now, None


def decide_deletion(orphan: Orphan, actor: str, now: datetime) -> None:
    """From now on it is deleted, until it is gone."""
    orphan.state, orphan.decision, orphan.decided_by, orphan.decided_at = OrphanState.DELETING, "delete", actor, now


def is_sure(orphan: Orphan, now: datetime) -> bool:
    """Whether it is known for long enough to be over."""
    return orphan.state == OrphanState.LEFTOVER and now - orphan.first_seen_at >= SURE_AFTER


def _begin(orphan: Orphan | None, provider: str, status: ReplicaStatus, judgement: Judgement, now: datetime) -> Orphan:
    begun = Orphan(
        provider=provider,
        name=status.name,
        boot_token=status.boot_token,
        state=_STATES[judgement.verdict],
        reason=judgement.reason,
        first_seen_at=now,
        last_seen_at=now,
    )
    if orphan is None:
        return begun
    for column in ("boot_token", "state", "first_seen_at", "last_seen_at", "decision", "decided_by", "decided_at"):
        setattr(orphan, column, getattr(begun, column))
    orphan.trouble, orphan.gone_at = None, None
    return orphan
