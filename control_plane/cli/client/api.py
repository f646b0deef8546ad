"""The REST API of one server, with its errors turned into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from control_plane import errors
from control_plane.cli.client.connection import HOW_TO_START, find_server
from control_plane.cli.exit_codes import TimedOut
from control_plane.client_file import ClientFile
from control_plane.errors import SlipwayError, Unavailable

#: A JSON object as the API sends it.
Json = dict[str, Any]

_TIMEOUT = httpx.Timeout(30, connect=5)
#: A stream may be silent for as long as a model thinks.
_STREAM_TIMEOUT = httpx.Timeout(30, connect=5, read=None)
_ERRORS: dict[int, type[SlipwayError]] = {
    kind.status: kind
    for kind in (
        errors.Unauthenticated,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.Invalid,
        errors.TooManyRequests,
        errors.Unavailable,
    )
}


class Unreachable(Unavailable):
    """Nothing answers at the server's address, or it hung up."""

    code = "unreachable"
    next_step = HOW_TO_START


class Api:
    """A connection; ``with Api.open() as api``. Every method raises a :class:`SlipwayError` that a person can read."""

    def __init__(self, server: ClientFile) -> None:
        self.url = server.url
        # A proxy is for other machines: what is set for them must not swallow requests to this one.
        local = urlsplit(server.url).hostname in {"127.0.0.1", "::1", "localhost"}
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {server.api_key}"}, timeout=_TIMEOUT, trust_env=not local
        )

    @classmethod
    def open(cls) -> Self:
        """Connect to the server that the environment names."""
        return cls(find_server())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Json:
        """``GET /api/v1{path}``; parameters that are None are left out."""
        given = {name: value for name, value in params.items() if value is not None}
        return self._json("GET", path, params=given)

    def post(self, path: str, body: Json | None = None, *, headers: dict[str, str] | None = None) -> Json:
        """``POST /api/v1{path}``."""
        return self._json("POST", path, json=body, headers=headers)

    def delete(self, path: str) -> Json:
        """``DELETE /api/v1{path}``; an empty object where the answer is empty."""
        return self._json("DELETE", path)

    def items(self, path: str, **params: Any) -> Iterator[Json]:
        """Every item of a list, page by page."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, **params)
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    @contextmanager
    def stream(self, method: str, url: str, **options: Any) -> Iterator[Iterator[str]]:
        """Lines of an answer as they arrive. ``url`` is a path on the server, ``/i/…`` or ``/api/v1/…``."""
        with (
            _readable_errors(self.url),
            self._http.stream(method, self._origin() + url, timeout=_STREAM_TIMEOUT, **options) as response,
        ):
            if response.is_error:
                response.read()
                raise _error_of(response)
            yield response.iter_lines()

    def _json(self, method: str, path: str, **options: Any) -> Json:
        with _readable_errors(self.url):
            response = self._http.request(method, f"{self.url}/api/v1{path}", **options)
        if response.is_error:
            raise _error_of(response)
        if not response.content:
            return {}
        body = _object(response)
        if body is None or not response.is_success:
            raise Unavailable(f"what answers at {self.url} is not Slipway", "Check SLIPWAY_URL.")
        return body

    def _origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


@contextmanager
def _readable_errors(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise Unreachable(f"no server answers at {url}") from error
    except httpx.TimeoutException as error:
        raise TimedOut(f"the server at {url} did not answer in {_TIMEOUT.read:.0f} s") from error
    except httpx.ConnectError as error:
        raise Unreachable(f"no server answers at {url}") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise Unreachable(f"talking to {url} failed: {error}") from error


def _object(response: httpx.Response) -> Json | None:
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _error_of(response: httpx.Response) -> SlipwayError:
    """The error in a problem document, or in an OpenAI-shaped body."""
    kind = _ERRORS.get(response.status_code, SlipwayError)
    body = _object(response) or {}
    if isinstance(body.get("detail"), str):
        return kind(body["detail"], body.get("next_step"))
    inner = body.get("error")
    if isinstance(inner, dict) and isinstance(inner.get("message"), str):
        return kind(inner["message"], inner.get("next_step"))
    return kind(f"the server answered {response.status_code} {response.reason_phrase}")
