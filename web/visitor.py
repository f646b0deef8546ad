"""Who looks at a page: a signed-in person, or somebody about to sign in. Both prove where their forms came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import Depends, Form, Request
from starlette.responses import Response

from control_plane.accounts import cookies
from control_plane.accounts.dependencies import CsrfRefused, PrincipalDep
from control_plane.accounts.principal import Principal
from control_plane.context import Context, ContextDep
from control_plane.errors import Forbidden, Unauthenticated
from control_plane.keys import new_token

#: Ties the forms shown before signing in to the browser they were shown to.
FORM_COOKIE = "slipway_form"
HOME = "/"


@dataclass(frozen=True)
class Visitor:
    """A signed-in person. ``csrf_token`` belongs in every form; the dependency has checked the one that came in."""

    context: Context
    principal: Principal
    csrf_token: str


def _signed_in(request: Request, context: ContextDep, principal: PrincipalDep) -> Visitor:
    token = cookies.session_token(request)
    if principal.via != "session" or token is None:
        raise Unauthenticated("pages are for signed-in browsers", "Sign in.")
    return Visitor(context, principal, cookies.csrf_token(context, token))


#: ``def page(visitor: VisitorDep)``: without a session the answer is a redirect to the sign-in page.
VisitorDep = Annotated[Visitor, Depends(_signed_in)]


def _administrator(visitor: VisitorDep) -> Visitor:
    if not visitor.principal.is_admin:
        raise Forbidden("This page is for administrators.")
    return visitor


#: The same for pages that are for administrators only.
AdminVisitorDep = Annotated[Visitor, Depends(_administrator)]


@dataclass(frozen=True)
class Stranger:
    """Somebody who has not signed in yet."""

    context: Context
    token: str

    @property
    def csrf_token(self) -> str:
        """What their form must carry."""
        return cookies.csrf_token(self.context, self.token)

    def remember(self, response: Response) -> None:
        """Give the browser the cookie that the form's token belongs to."""
        response.set_cookie(
            FORM_COOKIE,
            self.token,
            path="/",
            httponly=True,
            samesite="strict",
            secure=self.context.settings.public_url.startswith("https://"),
        )


def _stranger(request: Request, context: ContextDep) -> Stranger:
    return Stranger(context, request.cookies.get(FORM_COOKIE) or new_token())


#: For the pages in front of the sign-in.
StrangerDep = Annotated[Stranger, Depends(_stranger)]


def _stranger_with_form(stranger: StrangerDep, csrf_token: Annotated[str, Form()] = "") -> Stranger:
    if not cookies.csrf_is_valid(stranger.context, stranger.token, csrf_token):
        raise CsrfRefused("this form is out of date, or did not come from this page", "Reload the page and try again.")
    return stranger


#: For their forms.
CheckedStrangerDep = Annotated[Stranger, Depends(_stranger_with_form)]


def local_path(target: str) -> str:
    """``target`` if it is a path on this server, else the home page: a sign-in link must not lead elsewhere."""
    parts = urlsplit(target)
    safe = (
        target.startswith("/")
        and not target.startswith("//")
        and "\\" not in target
        and target.isprintable()
        and not (parts.scheme or parts.netloc)
    )
    return target if safe else HOME


def sign_in_path(request: Request) -> str:
    """Where to sign in, and come back from to what was asked for."""
    wanted = request.url.path
    if request.method != "GET" or wanted == HOME:
        return "/login"
    if request.url.query:
        wanted += f"?{request.url.query}"
    return f"/login?next={quote(wanted, safe='')}"
