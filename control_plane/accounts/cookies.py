"""The session cookie, and the token that proves a form came from our own pages."""

from __future__ import annotations

import hmac

from fastapi import Request
from starlette.responses import Response

from control_plane.accounts.service import SESSION_LIFETIME
from control_plane.context import Context
from control_plane.keys import hmac_hex

SESSION_COOKIE = "slipway_session"
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf_token"


def session_token(request: Request) -> str | None:
    """The browser's session token, if it sent one."""
    return request.cookies.get(SESSION_COOKIE) or None


def set_session_cookie(response: Response, context: Context, token: str) -> None:
    """Sign the browser in. Scripts cannot read the cookie, and other sites' requests do not carry it."""
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        path="/",
        secure=context.settings.public_url.startswith("https://"),
        httponly=True,
        samesite="lax",
    )


def clear_session_cookie(response: Response) -> None:
    """Sign the browser out on its own side."""
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="lax")


def csrf_token(context: Context, token: str) -> str:
    """The CSRF token that belongs to a session token: derived, so that nothing need be stored."""
    return hmac_hex(context.settings.key_material, "csrf", token)


def csrf_is_valid(context: Context, token: str, submitted: str | None) -> bool:
    """Whether ``submitted`` belongs to the session ``token``."""
    return submitted is not None and hmac.compare_digest(csrf_token(context, token).encode(), submitted.encode())
