"""Errors as pages: what went wrong, and what to do. The API's routes keep their problem documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from control_plane.errors import SlipwayError, Unauthenticated
from control_plane.problems import database_away, problem
from web.templating import page
from web.visitor import sign_in_path

#: Everything else is a page.
_PROGRAM_PATHS = ("/api/", "/i/", "/v1/", "/healthz", "/readyz", "/metrics")

_Handler = Callable[[Request, Exception], Any]


def is_page(request: Request) -> bool:
    """Whether a person, not a program, reads the answer."""
    return not request.url.path.startswith(_PROGRAM_PATHS)


def install_error_pages(app: FastAPI) -> None:
    """Answer errors on pages with pages; elsewhere the handlers that ``app`` already has stay in charge."""
    for kind in (SlipwayError, OperationalError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _page_or(app.exception_handlers[kind]))
    app.add_exception_handler(Exception, _page_or(_internal_problem))


def _page_or(otherwise: _Handler) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        if is_page(request):
            return error_page(request, error)
        response: Response = await otherwise(request, error)
        return response

    return handle


async def _internal_problem(request: Request, _error: Exception) -> Response:
    error = SlipwayError("something went wrong on the server")
    return problem(request, error.status, error.code, error.detail, error.next_step)


def error_page(request: Request, error: Exception) -> Response:
    """The page for ``error``; a missing session leads to the sign-in page instead."""
    if isinstance(error, Unauthenticated):
        return _to_sign_in(request)
    if isinstance(error, OperationalError):
        error = database_away()
    if isinstance(error, SlipwayError):
        status, detail, next_step = error.status, error.detail, error.next_step
    elif isinstance(error, HTTPException):
        status = error.status_code
        detail = "There is no such page." if status == 404 else str(error.detail)
        next_step = "Check the address, or go to the start page."
    elif isinstance(error, RequestValidationError):
        status, detail, next_step = (
            422,
            "This address or form has a value that makes no sense.",
            "Go back and check it.",
        )
    else:
        status, detail, next_step = 500, "Something went wrong on the server.", SlipwayError.next_step
    title = HTTPStatus(status).phrase
    return page(request, "pages/error.html", status=status, title=title, detail=detail, next_step=next_step)


def _to_sign_in(request: Request) -> Response:
    if "text/event-stream" in request.headers.get("Accept", ""):
        return Response("the session has ended", 401)
    if "HX-Request" in request.headers:
        # htmx follows a plain redirect inside the page; this header makes the browser go there.
        return Response(status_code=401, headers={"HX-Redirect": "/login"})
    return RedirectResponse(sign_in_path(request), 303)
