"""Errors of the HTTP API, in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

#: OpenAI's error type by HTTP status; others of 4xx are "invalid_request_error", of 5xx "server_error".
_TYPES = {401: "authentication_error", 429: "rate_limit_error", 503: "service_unavailable_error"}


class ErrorDetail(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    error: ErrorDetail


class ApiError(Exception):
    """A request that is answered with an error.

    :param status: HTTP status.
    :param message: what is wrong and what would work, for a person.
    :param param: the field that is wrong.
    :param code: a stable word for programs.
    :param headers: further response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers

    @property
    def body(self) -> bytes:
        """The JSON that the client receives."""
        default = "invalid_request_error" if self.status < 500 else "server_error"
        kind = _TYPES.get(self.status, default)
        return msgspec.json.encode(ErrorBody(ErrorDetail(self.message, kind, self.param, self.code)))

    def response(self) -> Response:
        return Response(self.body, self.status, self.headers, "application/json")
