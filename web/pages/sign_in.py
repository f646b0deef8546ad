"""``/setup`` and ``/login``: how a browser gets its session; ``/logout``: how it ends it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from control_plane.accounts import cookies, service
from control_plane.accounts.endpoints import client_address
from control_plane.accounts.schemas import LoginRequest, SetupRequest
from control_plane.errors import SlipwayError
from web.forms import parsed
from web.templating import page
from web.visitor import HOME, CheckedStrangerDep, Stranger, StrangerDep, VisitorDep, local_path

router = APIRouter(include_in_schema=False)


def _stranger_page(
    request: Request, stranger: Stranger, template: str, status: int = 200, **values: object
) -> Response:
    response = page(request, template, status=status, visitor=stranger, **values)
    stranger.remember(response)
    return response


def _enter(stranger: Stranger, session_token: str, target: str) -> Response:
    response = RedirectResponse(target, 303)
    cookies.set_session_cookie(response, stranger.context, session_token)
    return response


@router.get("/setup")
def setup_form(request: Request, stranger: StrangerDep, token: str = "") -> Response:
    """The one-time link: a form for the first account."""
    is_open = service.setup_is_open(stranger.context, token)
    values = {"open": is_open, "token": token, "email": "", "name": "", "error": None}
    return _stranger_page(request, stranger, "pages/setup.html", 200 if is_open else 403, **values)


@router.post("/setup")
def setup(
    request: Request,
    stranger: CheckedStrangerDep,
    *,
    token: Annotated[str, Form()] = "",
    email: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
) -> Response:
    """Make the account, sign it in, go to the start page."""
    try:
        parsed(SetupRequest, {"token": token, "email": email, "name": name, "password": password})
        signed_in = service.set_up(stranger.context, token=token, email=email, name=name, password=password)
    except SlipwayError as error:
        is_open = service.setup_is_open(stranger.context, token)
        values = {"open": is_open, "token": token, "email": email, "name": name, "error": error}
        return _stranger_page(request, stranger, "pages/setup.html", error.status, **values)
    return _enter(stranger, signed_in.token, HOME)


@router.get("/login")
def login_form(request: Request, stranger: StrangerDep, next: str = HOME) -> Response:
    """The sign-in form."""
    return _stranger_page(request, stranger, "pages/login.html", next=local_path(next), email="", error=None)


@router.post("/login")
def login(
    request: Request,
    stranger: CheckedStrangerDep,
    email: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = HOME,
) -> Response:
    """Sign in, go where the visitor wanted to."""
    address = client_address(request)
    try:
        parsed(LoginRequest, {"email": email, "password": password})
        signed_in = service.sign_in(stranger.context, email=email, password=password, address=address)
    except SlipwayError as error:
        values = {"next": local_path(next), "email": email, "error": error}
        return _stranger_page(request, stranger, "pages/login.html", error.status, **values)
    return _enter(stranger, signed_in.token, local_path(next))


@router.post("/logout")
def logout(request: Request, visitor: VisitorDep) -> Response:
    """End the session."""
    if token := cookies.session_token(request):
        service.sign_out(visitor.context, visitor.principal, token)
    response = RedirectResponse("/login", 303)
    cookies.clear_session_cookie(response)
    return response
