"""Checking one provider: its list against our rows, and an end to what is surely over.

::

    claim ──► list_owned() ──► compare with the rows, note, decide ──► delete what is decided
    (row)     (network)        (one transaction, gives the row back)   (network, under the instance's own lease)

While too much of the provider looks gone at once (``instances/brake.py``), the list is doubted: nothing is deleted but
what an administrator has decided to.

Two schedulers, or two workers, at once are harmless: the row is claimed, and what is absent can be deleted again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from control_plane import leases
from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.database import after_commit
from control_plane.errors import SlipwayError
from control_plane.instances import brake
from control_plane.instances.change import RECONCILE
from control_plane.instances.tables import Instance
from control_plane.processes import repository as processes
from control_plane.providers.base import Provider, ReplicaStatus
from control_plane.reaper import repository
from control_plane.reaper.deletion import delete_orphan
from control_plane.reaper.match import Judgement, Rows, Verdict, judge, replica_named
from control_plane.reaper.sightings import REAPER, decide_deletion, is_sure, miss, see
from control_plane.reaper.tables import Orphan, OrphanState, ProviderCheck

logger = logging.getLogger(__name__)

CHECK = "reaper.check"
#: Longer than a listing takes.
LEASE = timedelta(seconds=60)
#: While something waits for its second sighting, or to be gone, the next look comes sooner than usual.
_SOON = timedelta(seconds=20)
_VERY_SOON = timedelta(seconds=5)
#: What is over for so long is of no interest any more.
_FORGET_AFTER = timedelta(days=30)


class _Claim(NamedTuple):
    token: UUID
    provider: str


@dataclass(frozen=True)
class _Listing:
    """What a provider listed, judged."""

    matched: frozenset[str]
    unmatched: dict[str, tuple[ReplicaStatus, Judgement]]


def sweep(context: Context) -> list[UUID]:
    """Send a hint for every provider that is due; a new provider gets its row. Returns the ids of the hinted rows."""
    now = context.clock.now()
    with context.database.transaction() as session:
        repository.forget_orphans(session, now - _FORGET_AFTER)
        processes.forget(session, now)
        known = {row.provider for row in repository.checks(session)}
    for provider in sorted(set(context.providers) - known):
        _insert(context, provider, now)
    with context.database.reading() as session:
        due = repository.due_checks(session, context.providers, now, _interval(context))
    for check_id in due:
        context.hint(CHECK, check_id)
    return due


def check(context: Context, check_id: UUID) -> bool:
    """Check the provider of a row; False when it was not due, or somebody else is at it."""
    claim = _claim(context, check_id)
    if claim is None:
        return False
    provider = context.providers[claim.provider]
    try:
        listing = provider.list_owned()
    except SlipwayError as error:
        _note_failure(context, check_id, claim, f"{error.detail} {error.next_step}")
        return True
    except Exception as error:
        logger.exception("provider %s: listing what is ours failed", claim.provider)
        _note_failure(context, check_id, claim, f"internal error ({type(error).__name__}); see the worker's log")
        return True
    braked = _brake(context, provider)
    for orphan in _compare(context, check_id, claim, provider, listing, braked):
        delete_orphan(context, provider, orphan)
    return True


def _insert(context: Context, provider: str, now: datetime) -> None:
    try:
        with context.database.transaction() as session:
            session.add(ProviderCheck(provider=provider, next_attempt_at=now))
    except IntegrityError:
        logger.debug("another scheduler was quicker to note provider %s", provider)


def _interval(context: Context) -> timedelta:
    return timedelta(seconds=context.settings.reap_interval_s)


def _claim(context: Context, check_id: UUID) -> _Claim | None:
    now = context.clock.now()
    with context.database.transaction() as session:
        if check_id not in repository.due_checks(session, context.providers, now, _interval(context)):
            return None
        token = leases.claim(session, ProviderCheck, check_id, now=now, lease=LEASE)
        if token is None:
            return None
        row = session.get_one(ProviderCheck, check_id)
        row.next_attempt_at = now + _interval(context)
        return _Claim(token, row.provider)


def _brake(context: Context, provider: Provider) -> str | None:
    """Why nothing may be deleted automatically; None while all is well."""
    try:
        judged = brake.judge(context, provider)
    except SlipwayError as error:
        return error.detail
    return judged.reason if judged.on else None


def _note_failure(context: Context, check_id: UUID, claim: _Claim, words: str) -> None:
    with context.database.transaction() as session:
        if not leases.release(session, ProviderCheck, check_id, claim.token):
            return
        row = session.get_one(ProviderCheck, check_id)
        row.last_error = words[:2000]
        row.error_since = row.error_since or context.clock.now()


def _compare(
    context: Context,
    check_id: UUID,
    claim: _Claim,
    provider: Provider,
    statuses: Sequence[ReplicaStatus],
    braked: str | None,
) -> list[Orphan]:
    """Write down what the listing says; returns what is to be deleted now."""
    now = context.clock.now()
    with context.database.transaction() as session:
        if not leases.release(session, ProviderCheck, check_id, claim.token):
            return []  # it took too long, and another worker has begun anew
        row = session.get_one(ProviderCheck, check_id)
        listing = _judged(statuses, repository.rows_for(session, statuses))
        orphans = _note(session, context, row.provider, listing, exact=provider.exact)
        _hasten(session, context, row.provider, {status.name for status in statuses})
        for orphan in orphans:
            if is_sure(orphan, now) and braked is None:
                decide_deletion(orphan, REAPER, now)
        row.last_listed_at, row.last_error, row.error_since = now, None, None
        row.owned, row.matched, row.unmatched = len(statuses), len(listing.matched), len(orphans)
        row.brake_reason = braked[:500] if braked else None
        row.next_attempt_at = now + min(_interval(context), _patience(orphans))
        return [
            orphan
            for orphan in orphans
            if orphan.state == OrphanState.DELETING and (braked is None or orphan.decided_by != REAPER)
        ]


def _judged(statuses: Sequence[ReplicaStatus], rows: Rows) -> _Listing:
    judged = [(status, judge(status, rows)) for status in statuses]
    return _Listing(
        matched=frozenset(status.name for status, judgement in judged if judgement.verdict is Verdict.MATCHED),
        unmatched={status.name: (status, how) for status, how in judged if how.verdict is not Verdict.MATCHED},
    )


def _note(session: Session, context: Context, provider: str, listing: _Listing, *, exact: bool) -> list[Orphan]:
    """Bring the orphans' rows up to date; returns those that were listed."""
    now = context.clock.now()
    known = repository.orphans_of(session, provider, listing.unmatched)
    for name, orphan in known.items():
        if name not in listing.unmatched:
            miss(orphan, now, wanted=name in listing.matched, exact=exact)
            if orphan.gone_at is not None and orphan.decision == "delete":
                _record_end(session, context, orphan)
    seen = [see(known.get(name), provider, *found, now) for name, found in listing.unmatched.items()]
    session.add_all(seen)
    return seen


def _record_end(session: Session, context: Context, orphan: Orphan) -> None:
    """In the instance's own timeline, where there is one."""
    named = replica_named(orphan.name)
    instance = session.get(Instance, named.instance_id) if named else None
    audit.record(
        session,
        context.clock,
        team_id=instance.team_id if instance else None,
        actor=orphan.decided_by or REAPER,
        action="provider.orphan_deleted",
        object_type="instance" if instance else "orphan",
        object_id=instance.id if instance else orphan.id,
        message=f"{orphan.name} was deleted from {orphan.provider}: {orphan.reason}",
        provider=orphan.provider,
        name=orphan.name,
        boot_token=orphan.boot_token,
    )


def _hasten(session: Session, context: Context, provider: str, listed: set[str]) -> None:
    """What should be there and is not listed is looked at by its reconciler now; nothing is concluded here."""
    missing = {instance_id for name, instance_id in repository.started(session, provider) if name not in listed}
    for instance_id in repository.hasten_instances(session, missing, context.clock.now()):
        after_commit(session, partial(context.hint, RECONCILE, instance_id))


def _patience(orphans: Sequence[Orphan]) -> timedelta:
    states = {orphan.state for orphan in orphans}
    if OrphanState.DELETING in states:
        return _VERY_SOON
    return _SOON if OrphanState.LEFTOVER in states else timedelta.max
