"""API keys: issued, shown once, listed, revoked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlmodel import Session

from control_plane.accounts import repository
from control_plane.accounts.principal import Principal
from control_plane.accounts.repository import KeyOwner
from control_plane.accounts.tables import ApiKey
from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.errors import Invalid, NotFound
from control_plane.keys import hmac_hex, is_well_formed, new_api_key, shown_prefix

#: ``last_used_at`` is exact to this much: a write for every request would be one too many.
TOUCH_INTERVAL = timedelta(minutes=1)


class IssuedKey(NamedTuple):
    """A new key; ``secret`` is what its owner must keep, for nobody can read it again."""

    row: ApiKey
    secret: str


def create(context: Context, principal: Principal, *, name: str, expires_at: datetime | None = None) -> IssuedKey:
    """Make a key that acts for ``principal`` in its team.

    :param expires_at: timezone-aware; None for a key that lasts until it is revoked.
    :raises Invalid: no name, or an expiry that is not in the future.
    """
    name = name.strip()
    if not name:
        raise Invalid("a key needs a name", "Name it after what will use it.")
    if expires_at is not None and expires_at <= context.clock.now():
        raise Invalid("expires_at is in the past", "Give a later time, or none.")
    with context.database.transaction() as session:
        return issue(
            session,
            context,
            team_id=principal.team_id,
            user_id=principal.user_id,
            actor=principal.actor,
            name=name,
            expires_at=expires_at,
        )


def issue(
    session: Session,
    context: Context,
    *,
    team_id: UUID,
    user_id: UUID,
    actor: str,
    name: str,
    expires_at: datetime | None = None,
) -> IssuedKey:
    """Add a new key to the transaction of ``session``."""
    secret = new_api_key()
    row = ApiKey(
        team_id=team_id,
        user_id=user_id,
        name=name,
        prefix=shown_prefix(secret),
        key_hmac=_key_hmac(context, secret),
        created_at=context.clock.now(),
        expires_at=expires_at,
    )
    session.add(row)
    message = f"key {name!r} ({row.prefix}…) was created"
    _record(session, context, row, actor=actor, action="key.created", message=message)
    return IssuedKey(row, secret)


def listing(context: Context, principal: Principal, *, before: UUID | None = None, limit: int = 50) -> list[ApiKey]:
    """The keys that ``principal`` may see, newest first: an administrator the team's, others their own."""
    with context.database.reading() as session:
        return repository.keys(session, principal.team_id, of_user=_only(principal), before=before, limit=limit)


def revoke(context: Context, principal: Principal, key_id: UUID) -> None:
    """End a key for good; doing it twice is fine.

    :raises NotFound: no such key, or none that ``principal`` may see.
    """
    with context.database.transaction() as session:
        row = repository.key(session, principal.team_id, key_id, of_user=_only(principal))
        if row is None:
            raise NotFound(f"there is no key {key_id}", "List the keys you can see with GET /api/v1/keys.")
        if repository.revoke_key(session, key_id, context.clock.now()):
            message = f"key {row.name!r} ({row.prefix}…) was revoked"
            _record(session, context, row, actor=principal.actor, action="key.revoked", message=message)


def owner(session: Session, context: Context, secret: str) -> KeyOwner | None:
    """The row and user of a key that somebody presents; None unless it is usable now."""
    if not is_well_formed(secret):
        return None
    return repository.key_owner(session, _key_hmac(context, secret), context.clock.now())


def note_use(context: Context, row: ApiKey) -> None:
    """Write ``last_used_at``, at most once a :data:`TOUCH_INTERVAL`."""
    now = context.clock.now()
    if row.last_used_at is not None and now - row.last_used_at < TOUCH_INTERVAL:
        return
    with context.database.transaction() as session:
        repository.touch_key(session, row.id, now, unless_within=TOUCH_INTERVAL)


def _only(principal: Principal) -> UUID | None:
    return None if principal.is_admin else principal.user_id


def _key_hmac(context: Context, secret: str) -> str:
    return hmac_hex(context.settings.key_material, "api-key", secret)


def _record(session: Session, context: Context, row: ApiKey, *, actor: str, action: str, message: str) -> None:
    audit.record(
        session,
        context.clock,
        team_id=row.team_id,
        actor=actor,
        action=action,
        object_type="key",
        object_id=row.id,
        message=message,
    )
