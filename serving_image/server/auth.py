"""API keys: ASGI middleware in front of every route but the probes'."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving_image.server.errors import ApiError

OPEN_PATHS = frozenset({"/health", "/ready", "/version"})


class ApiKeys:
    """Answers 401 to a request without ``Authorization: Bearer`` and one of the keys.

    :param digests: SHA-256 digests of the keys. With none, every request passes.
    """

    def __init__(self, app: ASGIApp, digests: Sequence[bytes]) -> None:
        self._app = app
        self._digests = digests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._permits(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        message = "A valid API key is needed: send it as `Authorization: Bearer KEY`."
        error = ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        await error.response()(scope, receive, send)

    def _permits(self, headers: Headers) -> bool:
        if not self._digests:
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        # Every key is compared, in constant time, so that time says nothing about them.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == "bearer" and any(matches)
