"""Who is asking, as FastAPI dependencies: ``def endpoint(principal: PrincipalDep)``."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from control_plane.accounts import api_keys, cookies, repository
from control_plane.accounts.principal import Principal
from control_plane.accounts.service import session_hmac
from control_plane.context import Context, ContextDep
from control_plane.errors import Forbidden, Unauthenticated
from control_plane.keys import is_well_formed

#: Methods that change nothing, and so need no CSRF token.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class CsrfRefused(Forbidden):
    """A browser's session came without the token that only our own pages know."""

    code = "csrf_refused"
    next_step = "Send the X-CSRF-Token header with the token from GET /api/v1/me, or reload the page."


def authenticate(request: Request, context: Context, *, form_token: str | None = None) -> Principal:
    """Find out who sent ``request``: a bearer key, else the session cookie. Blocks on the database.

    :param form_token: the form field ``csrf_token``, where the caller has read a form; the header is looked at anyway.
    :raises Unauthenticated: neither a usable key nor a live session came with it.
    :raises CsrfRefused: a session, an unsafe method and no valid CSRF token.
    """
    if authorization := request.headers.get("Authorization"):
        return _by_key(authorization, context)
    if token := cookies.session_token(request):
        principal = _by_session(token, context)
        submitted = request.headers.get(cookies.CSRF_HEADER) or form_token
        if request.method not in SAFE_METHODS and not cookies.csrf_is_valid(context, token, submitted):
            raise CsrfRefused("the request carries no valid CSRF token")
        return principal
    raise Unauthenticated("this needs an API key or a signed-in browser")


async def authenticate_async(request: Request, context: Context) -> Principal:
    """:func:`authenticate` for streaming endpoints: waits for the database in a thread, leaves the body unread."""
    return await run_in_threadpool(authenticate, request, context)


async def _form_token(request: Request) -> str | None:
    """The CSRF token of a form. The form stays cached on the request, so that the endpoint can still read it."""
    is_form = request.headers.get("Content-Type", "").startswith(_FORMS)
    if request.method in SAFE_METHODS or not is_form or cookies.CSRF_HEADER in request.headers:
        return None
    value = (await request.form()).get(cookies.CSRF_FIELD)
    return value if isinstance(value, str) else None


def _principal(
    request: Request, context: ContextDep, form_token: Annotated[str | None, Depends(_form_token)]
) -> Principal:
    return authenticate(request, context, form_token=form_token)


def _admin(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
    if not principal.is_admin:
        raise Forbidden("this is for administrators")
    return principal


#: Any authenticated caller.
PrincipalDep = Annotated[Principal, Depends(_principal)]
#: An administrator.
AdminDep = Annotated[Principal, Depends(_admin)]


def _by_key(authorization: str, context: Context) -> Principal:
    scheme, _, secret = authorization.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer":
        raise Unauthenticated(f"authorization scheme {scheme[:20]!r} is not known here")
    if not is_well_formed(secret):
        raise Unauthenticated("the API key is not complete or mistyped", "Copy the whole key; it begins with sk-slip-.")
    with context.database.reading() as session:
        found = api_keys.owner(session, context, secret)
    if found is None:
        raise Unauthenticated("the API key is unknown, expired or revoked", "Create a new key.")
    api_keys.note_use(context, found.key)
    return Principal(
        user_id=found.user.id,
        team_id=found.key.team_id,
        name=found.user.name,
        is_admin=found.user.is_admin,
        via="key",
        actor=f"key:{found.key.id}",
    )


def _by_session(token: str, context: Context) -> Principal:
    with context.database.reading() as session:
        found = repository.session_owner(session, session_hmac(context, token), context.clock.now())
    if found is None:
        raise Unauthenticated("the session has ended", "Sign in again.")
    return Principal(
        user_id=found.user.id,
        team_id=found.team_id,
        name=found.user.name,
        is_admin=found.user.is_admin,
        via="session",
        actor=f"user:{found.user.id}",
    )
