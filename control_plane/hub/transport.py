"""GET from the hub, guarded: a size limit, time limits, and redirects to the hub's own hosts only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urljoin

import httpx2
from huggingface_hub import get_session, hf_raise_for_status

from control_plane.hub.errors import HubUnreachable, InvalidRepository, RedirectRefused
from control_plane.hub.hosts import HubHosts

MAX_REDIRECTS = 5

#: The hosts that requests of this thread may reach, while huggingface_hub follows redirects on its own.
_permitted: ContextVar[HubHosts | None] = ContextVar("permitted", default=None)


def _guard(request: httpx2.Request) -> None:
    hosts = _permitted.get()
    if hosts and not hosts.allows(str(request.url)):
        raise RedirectRefused(f"The hub redirected to {request.url.host}, which is not one of its hosts.")


@contextmanager
def guarded_session(hosts: HubHosts) -> Iterator[httpx2.Client]:
    """huggingface_hub's own HTTP session; while entered, its requests in this thread reach ``hosts`` only."""
    session = get_session()
    hooks = session.event_hooks["request"]
    if _guard not in hooks:
        hooks.append(_guard)
    previous = _permitted.set(hosts)
    try:
        yield session
    finally:
        _permitted.reset(previous)


@dataclass(frozen=True)
class Limits:
    """Seconds: ``silence`` between two bytes at most, ``total`` for a whole answer."""

    silence: float = 10.0
    total: float = 60.0


class Span(NamedTuple):
    """Part of a file, in bytes."""

    start: int
    length: int


def get(url: str, hosts: HubHosts, *, token: str | None, limit: int, limits: Limits, span: Span | None = None) -> bytes:
    """The body at ``url``, or ``span`` of it, following redirects within ``hosts``.

    :param limit: the most bytes the body may have.
    :raises RedirectRefused: a redirect to elsewhere, or too many.
    :raises InvalidRepository: a larger body.
    :raises HubUnreachable: ranges are not supported.
    :raises httpx2.HTTPError: no answer, or none in time.
    :raises huggingface_hub.errors.HfHubHTTPError: an error status.
    """
    deadline = time.monotonic() + limits.total
    headers = {"Accept-Encoding": "identity"}
    if span:
        headers["Range"] = f"bytes={span.start}-{span.start + span.length - 1}"
    with guarded_session(hosts) as session:
        for _ in range(MAX_REDIRECTS + 1):
            authorization = {"Authorization": f"Bearer {token}"} if token and hosts.may_see_token(url) else {}
            request = session.build_request("GET", url, headers=headers | authorization, timeout=limits.silence)
            response = session.send(request, stream=True, follow_redirects=False)
            try:
                if not response.has_redirect_location:
                    _raise_for_status(response)
                    if span and response.status_code != httpx2.codes.PARTIAL_CONTENT:
                        raise HubUnreachable("The hub does not answer range requests.")
                    return _body(response, limit, deadline)
            finally:
                response.close()
            url = urljoin(url, response.headers["Location"])
    raise RedirectRefused(f"The hub redirected more than {MAX_REDIRECTS} times.")


def _raise_for_status(response: httpx2.Response) -> None:
    """Judges by status and headers alone: the body of an error may be of any size and is not read."""
    headers = {name: value for name, value in response.headers.items() if name.startswith(("x-error-", "retry-"))}
    hf_raise_for_status(httpx2.Response(response.status_code, headers=headers, request=response.request))


def _body(response: httpx2.Response, limit: int, deadline: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > limit:
            name = response.url.path.rpartition("/")[2]
            raise InvalidRepository(f"{name} is larger than {limit:,} bytes, which no honest file of its kind is.")
        if time.monotonic() > deadline:
            raise httpx2.ReadTimeout("the answer took too long", request=response.request)
    return bytes(body)
