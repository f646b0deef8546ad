"""Errors of the API URL, in the shape that OpenAI's clients read: ``{"error": {message, type, code, param}}``."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.responses import Response

from control_plane.errors import NotFound, SlipwayError, Unauthenticated, Unavailable

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ModelNotFound(NotFound):
    """No instance of this team goes by that name."""

    code = "model_not_found"
    next_step = "GET /v1/models lists what is running."


class NotRunning(Unavailable):
    """The instance exists but cannot answer now. ``phase`` and ``reason`` in ``extra`` say why."""

    code = "instance_not_running"


class EngineDied(SlipwayError):
    """The engine ended while it worked on the request."""

    status, code = 502, "engine_died"
    next_step = "It is started again by itself; send the request again."


class BodyTooLarge(SlipwayError):
    """The request is larger than the gateway takes."""

    status, code = 413, "request_too_large"
    next_step = "Send less at once."


class BadRequest(SlipwayError):
    """The request cannot be understood."""

    status, code = 400, "invalid_request"
    next_step = "Correct it and send it again."


def error_body(error: SlipwayError) -> dict[str, Any]:
    """``error`` as OpenAI's clients expect it; what else is known goes beside the four usual members."""
    code = "invalid_api_key" if isinstance(error, Unauthenticated) else error.code
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    message = f"{error.detail.rstrip('.')}. {error.next_step}"
    param = error.extra.get("param")
    more = {name: value for name, value in error.extra.items() if name not in {"param", "should_retry"}}
    return {"error": {"message": message, "type": kind, "code": code, "param": param, **more}}


def error_response(error: SlipwayError) -> Response:
    """An HTTP response for ``error``."""
    headers = {}
    if "retry_after_s" in error.extra:
        headers["Retry-After"] = str(error.extra["retry_after_s"])
    if error.extra.get("should_retry") is False:
        headers["x-should-retry"] = "false"  # OpenAI's own clients retry a 503 otherwise
    return JSONResponse(error_body(error), error.status, headers)


def error_event(error: SlipwayError) -> bytes:
    """A server-sent event for ``error``; begins on a fresh line, wherever the stream broke off."""
    return f"\n\ndata: {json.dumps(error_body(error))}\n\n".encode()


class OpenAIRoute(APIRoute):
    """A route whose errors have OpenAI's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors translated."""
        handle = super().get_route_handler()

        async def translated(request: Request) -> Response:
            try:
                return await handle(request)
            except SlipwayError as error:
                return error_response(error)
            except RequestValidationError as error:
                return error_response(BadRequest(str(error.errors()[0]["msg"])))

        return translated
