"""``/theme``: light, dark or automatic, for browsers in which the script that switches at once did not run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from web import theme
from web.visitor import HOME, VisitorDep, local_path

router = APIRouter(include_in_schema=False)


@router.post("/theme")
def switch_theme(request: Request, _: VisitorDep, next: Annotated[str, Form()] = HOME) -> Response:
    """The next theme round, and back to the page."""
    response = RedirectResponse(local_path(next), 303)
    theme.keep(response, theme.after(theme.theme_of(request)))
    return response
