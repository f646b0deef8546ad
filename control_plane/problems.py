"""Errors as HTTP answers: RFC 9457 problem documents."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from control_plane.errors import Invalid, SlipwayError, Unavailable

PROBLEM_JSON = "application/problem+json"


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
    headers = {"Retry-After": str(extra["retry_after_s"])} if "retry_after_s" in extra else {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(jsonable_encoder(body), status, headers, PROBLEM_JSON)


async def _slipway_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, SlipwayError):
        raise error
    return problem(request, error.status, error.code, error.detail, error.next_step, **error.extra)


def database_away() -> Unavailable:
    """What to say when the database does not answer."""
    return Unavailable("the database does not answer", "Try again in a few seconds. Instances go on serving.")


async def _database_error(request: Request, _error: Exception) -> Response:
    return await _slipway_error(request, database_away())


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
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
