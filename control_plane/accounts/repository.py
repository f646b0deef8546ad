"""Every query on users, teams, sessions, keys and sign-in failures."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import CursorResult, Delete, Update, and_, delete, or_, update
from sqlmodel import Session, col, select

from control_plane.accounts.tables import ApiKey, LoginFailure, Membership, SetupToken, Team, User, WebSession


class KeyOwner(NamedTuple):
    """A key and the user it acts for."""

    key: ApiKey
    user: User


class SessionOwner(NamedTuple):
    """A signed-in user and the team that the session acts for."""

    user: User
    team_id: UUID


def team_by_name(session: Session, name: str) -> Team | None:
    """The team of this name."""
    return session.exec(select(Team).where(Team.name == name)).one_or_none()


def team(session: Session, team_id: UUID) -> Team:
    """A team that is known to exist: a principal acts for it."""
    return session.exec(select(Team).where(Team.id == team_id)).one()


def user(session: Session, user_id: UUID) -> User:
    """A user who is known to exist: a principal is one."""
    return session.exec(select(User).where(User.id == user_id)).one()


def user_by_email(session: Session, email: str) -> User | None:
    """The user with this (lower-case) address."""
    return session.exec(select(User).where(User.email == email)).one_or_none()


def set_password_hash(session: Session, user_id: UUID, password_hash: str) -> None:
    """Store a password's new hash."""
    _changed(session, update(User).where(col(User.id) == user_id).values(password_hash=password_hash))


def first_team_id(session: Session, user_id: UUID) -> UUID | None:
    """The team that a user's web session acts for: the one joined first."""
    query = select(Membership.team_id).where(Membership.user_id == user_id).order_by(col(Membership.id)).limit(1)
    return session.exec(query).one_or_none()


def members(session: Session, team_id: UUID, *, after: UUID | None, limit: int) -> list[User]:
    """The users of a team, oldest first."""
    query = (
        select(User)
        .join(Membership, col(Membership.user_id) == User.id)
        .where(Membership.team_id == team_id)
        .order_by(col(User.id))
        .limit(limit)
    )
    if after is not None:
        query = query.where(col(User.id) > after)
    return list(session.exec(query))


def admin_exists(session: Session) -> bool:
    """Whether somebody can sign in as administrator."""
    query = select(User.id).where(User.is_admin, col(User.password_hash).is_not(None)).limit(1)
    return session.exec(query).first() is not None


def key_owner(session: Session, key_hmac: str, now: datetime) -> KeyOwner | None:
    """The usable key with this HMAC: not revoked, not expired, its user enabled and still in the key's team."""
    query = (
        select(ApiKey, User)
        .join(User, col(ApiKey.user_id) == User.id)
        .join(Membership, and_(col(Membership.user_id) == User.id, col(Membership.team_id) == ApiKey.team_id))
        .where(
            ApiKey.key_hmac == key_hmac,
            col(ApiKey.revoked_at).is_(None),
            or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > now),
            col(User.disabled_at).is_(None),
        )
    )
    row = session.exec(query).one_or_none()
    return None if row is None else KeyOwner(*row)


def touch_key(session: Session, key_id: UUID, now: datetime, *, unless_within: timedelta) -> None:
    """Note that a key was used, unless that was noted within ``unless_within``."""
    stale = or_(col(ApiKey.last_used_at).is_(None), col(ApiKey.last_used_at) <= now - unless_within)
    _changed(session, update(ApiKey).where(col(ApiKey.id) == key_id, stale).values(last_used_at=now))


def keys(session: Session, team_id: UUID, *, of_user: UUID | None, before: UUID | None, limit: int) -> list[ApiKey]:
    """The keys of a team, or of one of its users, newest first; ids are time-ordered."""
    query = select(ApiKey).where(ApiKey.team_id == team_id).order_by(col(ApiKey.id).desc()).limit(limit)
    if of_user is not None:
        query = query.where(ApiKey.user_id == of_user)
    if before is not None:
        query = query.where(col(ApiKey.id) < before)
    return list(session.exec(query))


def key(session: Session, team_id: UUID, key_id: UUID, *, of_user: UUID | None) -> ApiKey | None:
    """One key of a team, or None where it is not this team's (or not this user's)."""
    query = select(ApiKey).where(ApiKey.team_id == team_id, ApiKey.id == key_id)
    if of_user is not None:
        query = query.where(ApiKey.user_id == of_user)
    return session.exec(query).one_or_none()


def revoke_key(session: Session, key_id: UUID, now: datetime) -> bool:
    """Revoke a key; False when it was revoked already."""
    statement = update(ApiKey).where(col(ApiKey.id) == key_id, col(ApiKey.revoked_at).is_(None)).values(revoked_at=now)
    return _changed(session, statement) == 1


def session_owner(session: Session, token_hmac: str, now: datetime) -> SessionOwner | None:
    """Who is signed in with the session of this HMAC, if it has not expired and the user is enabled."""
    query = (
        select(User, Membership.team_id)
        .join(WebSession, col(WebSession.user_id) == User.id)
        .join(Membership, col(Membership.user_id) == User.id)
        .where(WebSession.token_hmac == token_hmac, WebSession.expires_at > now, col(User.disabled_at).is_(None))
        .order_by(col(Membership.id))
        .limit(1)
    )
    row = session.exec(query).one_or_none()
    return None if row is None else SessionOwner(*row)


def end_session(session: Session, token_hmac: str) -> None:
    """Sign one browser out."""
    _changed(session, delete(WebSession).where(col(WebSession.token_hmac) == token_hmac))


def forget_expired_sessions(session: Session, now: datetime) -> None:
    """Remove what no browser can use any more."""
    _changed(session, delete(WebSession).where(col(WebSession.expires_at) <= now))


def use_setup_token(session: Session, token_hmac: str, now: datetime) -> bool:
    """Use up a set-up token; False when there is none, or somebody else used it first."""
    unused = and_(col(SetupToken.token_hmac) == token_hmac, col(SetupToken.used_at).is_(None))
    return _changed(session, update(SetupToken).where(unused).values(used_at=now)) == 1


def setup_token_is_unused(session: Session, token_hmac: str) -> bool:
    """Whether a set-up link still opens."""
    query = select(SetupToken.id).where(SetupToken.token_hmac == token_hmac, col(SetupToken.used_at).is_(None))
    return session.exec(query).first() is not None


def forget_unused_setup_tokens(session: Session) -> None:
    """Invalidate every set-up link that was printed before."""
    _changed(session, delete(SetupToken).where(col(SetupToken.used_at).is_(None)))


def login_failures(session: Session, *, address: str, email: str | None, since: datetime) -> list[datetime]:
    """Times of failed sign-ins from ``address`` (for ``email`` only, if given), oldest first."""
    query = select(LoginFailure.at).where(LoginFailure.address == address, LoginFailure.at > since)
    if email is not None:
        query = query.where(LoginFailure.email == email)
    return list(session.exec(query.order_by(col(LoginFailure.at))))


def forget_login_failures(session: Session, *, address: str, email: str) -> None:
    """A sign-in succeeded: start counting again."""
    mine = and_(col(LoginFailure.address) == address, col(LoginFailure.email) == email)
    _changed(session, delete(LoginFailure).where(mine))


def forget_login_failures_before(session: Session, limit: datetime) -> None:
    """Remove failures that no longer count."""
    _changed(session, delete(LoginFailure).where(col(LoginFailure.at) <= limit))


def _changed(session: Session, statement: Update | Delete) -> int:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return result.rowcount if isinstance(result, CursorResult) else 0
