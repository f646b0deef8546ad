"""When too much of a provider looks gone at once, it is more likely that we cannot see than that all of it died.

::

    more than 30 % (and at least 3) of a provider's started replicas silent or absent at once
        ─► nothing is restarted there that looks gone, nothing is deleted that no user asked to delete,
           and "absent" confirms no release …
        ─► … until they are seen again, or an administrator confirms the loss

Whether the brake is on is computed from the rows, and where that does not decide it from the provider's list. Only
the moment at which it came on is noted (``provider_check.brake_since``), so that it is told once. What a provider
*knows* is no reason to doubt: a replica that exited or was lost is not counted, nor one that an exact provider calls
absent.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import CursorResult, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col

from control_plane.accounts.principal import Principal
from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.errors import Forbidden, NotFound
from control_plane.instances import repository
from control_plane.instances.silence import UNREACHABLE_S
from control_plane.instances.tables import Replica
from control_plane.providers.base import Provider, ReplicaState
from control_plane.reaper.tables import ProviderCheck

logger = logging.getLogger(__name__)

#: One or two lost at once are everyday accidents, however few there are.
AT_LEAST = 3
SHARE = 0.3
#: For so long a confirmed loss lets everything that is gone be replaced.
CONFIRMED_FOR = timedelta(minutes=10)
NEXT_STEP = "If they are really gone, an administrator can confirm the loss; else look at the provider and the network."

_ACTOR = "system:brake"


@dataclass(frozen=True)
class Brake:
    """How much of a provider looks gone, of what was started there."""

    provider: str
    gone: int
    started: int
    confirmed: bool = False

    @property
    def suspicious(self) -> bool:
        """Whether too much looks gone at once."""
        return self.gone >= AT_LEAST and self.gone > SHARE * self.started

    @property
    def on(self) -> bool:
        """Whether what looks gone is to be left alone."""
        return self.suspicious and not self.confirmed

    @property
    def reason(self) -> str:
        """For people."""
        return (
            f"{self.gone} of {self.started} replicas of {self.provider} look gone at once: "
            "waiting until they are seen again"
        )


def judge(context: Context, provider: Provider) -> Brake:
    """Whether ``provider``'s brake is on; tells when that has changed. Talks to the provider.

    :raises ProviderUnavailable: its list cannot be read; then nothing is known, and nothing is to be done either.
    """
    with context.database.reading() as session:
        started = repository.started_replicas(session, provider.name)
        check = repository.provider_check(session, provider.name)
    confirmed = check is not None and _is_recent(check.loss_confirmed_at, context.clock.now())
    gone = {replica.resource_name for replica in started if _looks_gone(replica, exact=provider.exact)}
    brake = Brake(provider.name, len(gone), len(started), confirmed)
    if not brake.suspicious and not provider.exact and len(started) >= AT_LEAST:
        # Rows are as old as their last look: the list tells of those that were not looked at since.
        gone |= _not_listed(provider, started)
        brake = Brake(provider.name, len(gone), len(started), confirmed)
    if brake.on != (check is not None and check.brake_since is not None):
        _tell(context, brake)
    return brake


def confirm_loss(context: Context, principal: Principal, provider: str) -> None:
    """What looks gone at ``provider`` is gone: let it be replaced.

    :raises Forbidden: the caller is no administrator.
    :raises NotFound: there is no such provider.
    """
    if not principal.is_admin:
        raise Forbidden("only administrators confirm losses")
    if provider not in context.providers:
        raise NotFound(f"there is no provider {provider!r}", "GET /admin/providers lists them.")
    now = context.clock.now()
    with context.database.transaction() as session:
        _ensure_row(session, provider, now)
        session.execute(
            update(ProviderCheck).where(col(ProviderCheck.provider) == provider).values(loss_confirmed_at=now)
        )
        message = f"{principal.name} confirmed that what looks gone at {provider} is gone"
        _record(session, context, provider, "loss_confirmed", message, actor=principal.actor)
        for instance_id in repository.serving_on(session, provider):
            repository.wake(session, instance_id, now)


def _is_recent(confirmed_at: datetime | None, now: datetime) -> bool:
    return confirmed_at is not None and timedelta(0) <= now - confirmed_at <= CONFIRMED_FOR


def _looks_gone(replica: Replica, *, exact: bool) -> bool:
    is_silent = replica.ready_at is not None and replica.silent_s >= UNREACHABLE_S
    return is_silent or (replica.absent_count > 0 and not exact)


def _not_listed(provider: Provider, started: list[Replica]) -> set[str]:
    there = {status.name: status for status in provider.list_owned() if status.state is not ReplicaState.ABSENT}
    return {
        replica.resource_name
        for replica in started
        if replica.resource_name not in there or there[replica.resource_name].boot_token != replica.boot_token
    }


def _tell(context: Context, brake: Brake) -> None:
    """Note the change; of several workers that notice it, one tells."""
    now = context.clock.now()
    with context.database.transaction() as session:
        _ensure_row(session, brake.provider, now)
        before = col(ProviderCheck.brake_since).is_(None) if brake.on else col(ProviderCheck.brake_since).is_not(None)
        statement = update(ProviderCheck).where(col(ProviderCheck.provider) == brake.provider, before)
        result = session.execute(statement.values(brake_since=now if brake.on else None))
        if not (isinstance(result, CursorResult) and result.rowcount):
            return
        if brake.on:
            logger.error("%s: %s", brake.provider, brake.reason)
            _record(session, context, brake.provider, "brake", brake.reason, gone=brake.gone, started=brake.started)
        else:
            what = "the loss was confirmed" if brake.suspicious else "enough of its replicas are seen again"
            _record(session, context, brake.provider, "brake_released", f"{brake.provider}: {what}")


def _ensure_row(session: Session, provider: str, now: datetime) -> None:
    if repository.provider_check(session, provider) is not None:
        return
    try:
        with session.begin_nested():
            session.add(ProviderCheck(provider=provider, next_attempt_at=now))
    except IntegrityError:
        logger.debug("somebody else noted provider %s at the same moment", provider)


def _record(
    session: Session, context: Context, provider: str, action: str, message: str, *, actor: str = _ACTOR, **data: object
) -> None:
    audit.record(
        session,
        context.clock,
        team_id=None,
        actor=actor,
        action=f"provider.{action}",
        object_type="provider",
        object_id=None,
        message=message,
        provider=provider,
        **data,
    )
