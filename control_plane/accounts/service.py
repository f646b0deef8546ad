"""The rules of accounts: the first administrator, signing in and out, what ``slipway up`` prepares."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlmodel import Session

from control_plane import client_file
from control_plane.accounts import api_keys, passwords, repository
from control_plane.accounts.principal import Principal
from control_plane.accounts.sign_in_limit import SignInLimit
from control_plane.accounts.tables import Membership, Role, SetupToken, Team, User, WebSession
from control_plane.audit import repository as audit
from control_plane.context import Context
from control_plane.errors import Conflict, Forbidden, Invalid, Unauthenticated
from control_plane.keys import hmac_hex, new_token

DEFAULT_TEAM = "default"
#: The account that the machine's own commands act for. It has no password, so nobody can sign in with it.
OPERATOR_EMAIL = "operator@localhost"
SESSION_LIFETIME = timedelta(days=14)

_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")


class SetupLinkNotValid(Forbidden):
    """The one-time link was used, replaced, or never was."""

    code = "setup_link_not_valid"
    next_step = "Use the link that 'slipway up' printed last."

    def __init__(self) -> None:
        super().__init__("this set-up link is not valid (any more)")


class SignedIn(NamedTuple):
    """A new web session. ``token`` belongs in the cookie and nowhere else."""

    user: User
    team: Team
    token: str


class Bootstrap(NamedTuple):
    """What ``slipway up`` has to show or keep: a set-up token while nobody can administer, a key for client.json.

    Each is None where it is not needed. Neither is stored in readable form, so this is the only chance to keep them.
    """

    setup_token: str | None
    api_key: str | None


def setup_is_open(context: Context, token: str) -> bool:
    """Whether a set-up link with ``token`` still opens."""
    with context.database.reading() as session:
        unused = repository.setup_token_is_unused(session, _setup_hmac(context, token))
        return unused and not repository.admin_exists(session)


def set_up(context: Context, *, token: str, email: str, name: str, password: str) -> SignedIn:
    """Make the first administrator and sign them in.

    :raises Conflict: there is an administrator already.
    :raises SetupLinkNotValid: the token is unknown, used or replaced by a newer one.
    :raises Invalid: the address or the password will not do.
    """
    email = normal_email(email)
    passwords.check_rules(password, email=email)
    with context.database.reading() as session:
        # Asked now, so that a stranger cannot make us hash, and again below, where nothing can come in between.
        _check_no_admin(session)
        if not repository.setup_token_is_unused(session, _setup_hmac(context, token)):
            raise SetupLinkNotValid
    password_hash = passwords.hash_password(password)
    with context.database.transaction() as session:
        _check_no_admin(session)
        if not repository.use_setup_token(session, _setup_hmac(context, token), context.clock.now()):
            raise SetupLinkNotValid
        team = _default_team(session, context)
        user = _new_user(session, context, team, email=email, name=name.strip() or email, password_hash=password_hash)
        _record(session, context, user, "user.created", f"{email} became the first administrator", team_id=team.id)
        return SignedIn(user, team, _new_session(session, context, user))


def sign_in(context: Context, *, email: str, password: str, address: str) -> SignedIn:
    """Check a password and begin a web session.

    :param address: where the request came from; failures are counted per address.
    :raises TooManyRequests: too many failures; ``retry_after_s`` says how long to wait.
    :raises Unauthenticated: wrong address or password; which of them is not said.
    """
    email = email.strip().lower()
    limit = SignInLimit(context, email=email, address=address)
    limit.begin_attempt()
    with context.database.reading() as session:
        user = repository.user_by_email(session, email)
        team_id = repository.first_team_id(session, user.id) if user else None
    # No session is held here: the comparison is slow on purpose.
    verdict = passwords.verify(user.password_hash if user else None, password)
    if user is None or team_id is None or user.disabled_at is not None or not verdict.correct:
        # One event whoever was meant: an extra write for known addresses would tell by its time which are known.
        with context.database.transaction() as session:
            audit.record(
                session,
                context.clock,
                team_id=team_id,
                actor="system:accounts",
                action="user.sign_in_failed",
                object_type="user",
                object_id=user.id if user else None,
                message=f"a sign-in as {email} failed" if user else "a sign-in with an unknown address failed",
                address=address,
            )
        raise Unauthenticated("wrong e-mail address or password", "Check both; passwords tell upper from lower case.")
    with context.database.transaction() as session:
        limit.forget(session)
        if verdict.rehashed:
            repository.set_password_hash(session, user.id, verdict.rehashed)
        repository.forget_expired_sessions(session, context.clock.now())
        _record(session, context, user, "user.signed_in", f"{email} signed in", team_id=team_id, address=address)
        return SignedIn(user, repository.team(session, team_id), _new_session(session, context, user))


def sign_out(context: Context, principal: Principal, token: str) -> None:
    """End the web session of ``token``."""
    with context.database.transaction() as session:
        repository.end_session(session, session_hmac(context, token))
        user = repository.user(session, principal.user_id)
        message = f"{user.email} signed out"
        _record(session, context, user, "user.signed_out", message, team_id=principal.team_id)


def bootstrap(context: Context) -> Bootstrap:
    """Prepare the database for use; called by ``slipway up`` at each start, and harmless to repeat.

    There will be the default team, the operator account, a key for ``client.json`` unless the one in it works, and,
    while there is no administrator with a password, a fresh set-up token that replaces older ones.
    """
    kept = client_file.read(context.settings.data_dir)
    with context.database.transaction() as session:
        team = _default_team(session, context)
        operator = repository.user_by_email(session, OPERATOR_EMAIL)
        if operator is None:
            operator = _new_user(
                session, context, team, email=OPERATOR_EMAIL, name="Operator of this machine", password_hash=None
            )
            message = "the operator account was made"
            _record(session, context, operator, "user.created", message, team_id=team.id, actor="system:up")
        api_key = None
        if kept is None or api_keys.owner(session, context, kept.api_key) is None:
            api_key = api_keys.issue(
                session, context, team_id=team.id, user_id=operator.id, actor="system:up", name="slipway up"
            ).secret
        setup_token = None
        if not repository.admin_exists(session):
            repository.forget_unused_setup_tokens(session)
            setup_token = new_token()
            session.add(SetupToken(token_hmac=_setup_hmac(context, setup_token), created_at=context.clock.now()))
        return Bootstrap(setup_token, api_key)


def normal_email(email: str) -> str:
    """``email`` as it is stored: lower case.

    :raises Invalid: it does not look like an address.
    """
    email = email.strip().lower()
    if _EMAIL.fullmatch(email) is None or email == OPERATOR_EMAIL:
        raise Invalid(f"{email[:80]!r} is not an e-mail address for a person", "Write it as name@example.org.")
    return email


def session_hmac(context: Context, token: str) -> str:
    """How a session token is stored."""
    return hmac_hex(context.settings.key_material, "session", token)


def _check_no_admin(session: Session) -> None:
    if repository.admin_exists(session):
        raise Conflict("Slipway is set up already", "Sign in, or ask an administrator for an account.")


def _setup_hmac(context: Context, token: str) -> str:
    return hmac_hex(context.settings.key_material, "setup", token)


def _default_team(session: Session, context: Context) -> Team:
    team = repository.team_by_name(session, DEFAULT_TEAM)
    if team is None:
        team = Team(name=DEFAULT_TEAM, created_at=context.clock.now())
        session.add(team)
        session.flush()
    return team


def _new_user(
    session: Session, context: Context, team: Team, *, email: str, name: str, password_hash: str | None
) -> User:
    """Add an administrator in ``team``; both accounts that this module makes are."""
    user = User(email=email, name=name, password_hash=password_hash, is_admin=True, created_at=context.clock.now())
    session.add(user)
    session.flush()
    session.add(Membership(user_id=user.id, team_id=team.id, role=Role.ADMIN))
    session.flush()
    return user


def _new_session(session: Session, context: Context, user: User) -> str:
    token, now = new_token(), context.clock.now()
    session.add(
        WebSession(
            user_id=user.id,
            token_hmac=session_hmac(context, token),
            created_at=now,
            expires_at=now + SESSION_LIFETIME,
        )
    )
    return token


def _record(
    session: Session,
    context: Context,
    user: User,
    action: str,
    message: str,
    *,
    team_id: UUID,
    actor: str | None = None,
    **data: str,
) -> None:
    audit.record(
        session,
        context.clock,
        team_id=team_id,
        actor=actor or f"user:{user.id}",
        action=action,
        object_type="user",
        object_id=user.id,
        message=message,
        **data,
    )
