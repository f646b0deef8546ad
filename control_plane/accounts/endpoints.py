"""REST of accounts: set-up, signing in, keys, users."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from control_plane.accounts import api_keys, cookies, repository, service
from control_plane.accounts.dependencies import AdminDep, PrincipalDep
from control_plane.accounts.schemas import (
    KeyCreate,
    KeyView,
    LoginRequest,
    Me,
    NewKey,
    SetupRequest,
    TeamView,
    UserView,
)
from control_plane.context import Context, ContextDep
from control_plane.errors import Invalid
from control_plane.pagination import Page, page_of

router = APIRouter(tags=["accounts"])

Limit = Annotated[int, Query(ge=1, le=200)]


@router.post("/setup", status_code=201)
def set_up(body: SetupRequest, response: Response, context: ContextDep) -> Me:
    """Make the first administrator, with the one-time token that ``slipway up`` prints, and sign them in."""
    signed_in = service.set_up(
        context,
        token=body.token.get_secret_value(),
        email=body.email,
        name=body.name,
        password=body.password.get_secret_value(),
    )
    return _welcome(response, context, signed_in)


@router.post("/auth/login")
def log_in(body: LoginRequest, request: Request, response: Response, context: ContextDep) -> Me:
    """Begin a web session: sets the cookie, returns the CSRF token."""
    signed_in = service.sign_in(
        context, email=body.email, password=body.password.get_secret_value(), address=client_address(request)
    )
    return _welcome(response, context, signed_in)


@router.post("/auth/logout", status_code=204)
def log_out(request: Request, response: Response, context: ContextDep, principal: PrincipalDep) -> None:
    """End the web session of this browser."""
    token = cookies.session_token(request)
    if principal.via != "session" or token is None:
        raise Invalid("an API key has no session to end", "Revoke the key with DELETE /api/v1/keys/{id}.")
    service.sign_out(context, principal, token)
    cookies.clear_session_cookie(response)


@router.get("/me")
def me(request: Request, context: ContextDep, principal: PrincipalDep) -> Me:
    """Who this request is from."""
    token = cookies.session_token(request) if principal.via == "session" else None
    with context.database.reading() as session:
        user = repository.user(session, principal.user_id)
        team = repository.team(session, principal.team_id)
    return Me(
        user_id=user.id,
        email=user.email,
        name=user.name,
        is_admin=user.is_admin,
        team=TeamView(id=team.id, name=team.name),
        via=principal.via,
        csrf_token=cookies.csrf_token(context, token) if token else None,
    )


@router.get("/keys")
def list_keys(
    context: ContextDep, principal: PrincipalDep, cursor: UUID | None = None, limit: Limit = 50
) -> Page[KeyView]:
    """API keys, newest first: an administrator sees the team's, others their own."""
    rows = api_keys.listing(context, principal, before=cursor, limit=limit + 1)
    return page_of([KeyView.model_validate(row) for row in rows], limit)


@router.post("/keys", status_code=201)
def create_key(body: KeyCreate, context: ContextDep, principal: PrincipalDep) -> NewKey:
    """Make an API key; the answer is the only time that it is shown."""
    issued = api_keys.create(context, principal, name=body.name, expires_at=body.expires_at)
    return NewKey(**KeyView.model_validate(issued.row).model_dump(), key=issued.secret)


@router.delete("/keys/{key_id}", status_code=204)
def revoke_key(key_id: UUID, context: ContextDep, principal: PrincipalDep) -> None:
    """Revoke an API key, at once and for good."""
    api_keys.revoke(context, principal, key_id)


@router.get("/users")
def list_users(
    context: ContextDep, principal: AdminDep, cursor: UUID | None = None, limit: Limit = 50
) -> Page[UserView]:
    """The members of the team, oldest first."""
    with context.database.reading() as session:
        rows = repository.members(session, principal.team_id, after=cursor, limit=limit + 1)
    return page_of([UserView.model_validate(row) for row in rows], limit)


def client_address(request: Request) -> str:
    """Where a request came from; behind a proxy, what uvicorn makes of the headers of proxies it trusts."""
    return request.client.host if request.client else "unknown"


def _welcome(response: Response, context: Context, signed_in: service.SignedIn) -> Me:
    cookies.set_session_cookie(response, context, signed_in.token)
    return Me(
        user_id=signed_in.user.id,
        email=signed_in.user.email,
        name=signed_in.user.name,
        is_admin=signed_in.user.is_admin,
        team=TeamView(id=signed_in.team.id, name=signed_in.team.name),
        via="session",
        csrf_token=cookies.csrf_token(context, signed_in.token),
    )
