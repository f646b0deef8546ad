"""Light, dark, or as the system says. Kept in a cookie, so that the server draws the right one at once."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from starlette.responses import Response

COOKIE = "slipway_theme"
#: In the order in which the switch goes round.
THEMES: Final = ("auto", "light", "dark")
_A_YEAR = 365 * 24 * 3600


def theme_of(request: Request) -> str:
    """The visitor's choice."""
    chosen = request.cookies.get(COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"


def after(theme: str) -> str:
    """The next one round."""
    return THEMES[(THEMES.index(theme) + 1) % len(THEMES)]


def keep(response: Response, theme: str) -> None:
    """Remember the choice. Scripts may read and set it: there is nothing secret in it."""
    response.set_cookie(COOKIE, theme, max_age=_A_YEAR, path="/", samesite="lax")
