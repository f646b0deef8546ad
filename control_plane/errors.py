"""Errors that reach a person: a stable code, what is wrong, and what to do next (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

PROBLEM_JSON = "application/problem+json"


class SlipwayError(Exception):
    """Base of every error a user can meet. Subclasses fix ``status`` and ``code``; instances say the rest.

    :param detail: what is wrong, in a sentence for a person.
    :param next_step: what to do about it.
    :param extra: further members of the problem document.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    next_step: str = "Try again; if it persists, look at the server's log."

    def __init__(self, detail: str, next_step: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.next_step = next_step or type(self).next_step
        self.extra = extra


class NotFound(SlipwayError):
    """No such object, or it belongs to another team: the two look the same on purpose."""

    status, code = 404, "not_found"
    next_step = "Check the id; list what you can see with GET on the collection."


class Unauthenticated(SlipwayError):
    """No valid key or session came with the request."""

    status, code = 401, "unauthenticated"
    next_step = "Send 'Authorization: Bearer sk-slip-…', or sign in."


class Forbidden(SlipwayError):
    """Known, but not allowed."""

    status, code = 403, "forbidden"
    next_step = "Ask an administrator of your team."


class Conflict(SlipwayError):
    """The object's state does not permit this."""

    status, code = 409, "conflict"
    next_step = "Look at the object's present state and try again."


class Invalid(SlipwayError):
    """The request makes no sense as it is."""

    status, code = 422, "invalid"
    next_step = "Correct the named field and send it again."


class TooManyRequests(SlipwayError):
    """A rate limit was hit; ``retry_after_s`` in ``extra`` says how long to wait."""

    status, code = 429, "too_many_requests"
    next_step = "Wait, then try again."


class Unavailable(SlipwayError):
    """Something this needs is not there right now."""

    status, code = 503, "unavailable"
    next_step = "Try again in a few seconds."


def problem(request: Request, status: int, code: str, detail: str, next_step: str, **extra: Any) -> Response:
    """An RFC 9457 problem document."""
    body = {
        "type": f"urn:slipway:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "next_step": next_step,
        "instance": request.url.path,
        **extra,
    }
    headers = {"Retry-After": str(extra["retry_after_s"])} if "retry_after_s" in extra else None
    return JSONResponse(jsonable_encoder(body), status, headers, PROBLEM_JSON)


async def _slipway_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, SlipwayError):
        raise error
    return problem(request, error.status, error.code, error.detail, error.next_step, **error.extra)


async def _validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [
        {"field": ".".join(map(str, e["loc"][1:])) or str(e["loc"][0]), "message": e["msg"]} for e in error.errors()
    ]
    first = fields[0]
    return problem(request, 422, "invalid", f"{first['field']}: {first['message']}", Invalid.next_step, errors=fields)


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return problem(request, error.status_code, code, str(error.detail), "See /api/v1/openapi.json for what there is.")


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""
    app.add_exception_handler(SlipwayError, _slipway_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
