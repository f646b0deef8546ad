"""Asking an engine over HTTP whether it can answer."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

import httpx

_TIMEOUT_S = 2.0


class Probe(StrEnum):
    """What an engine said."""

    READY = "ready"
    NOT_READY = "not ready"
    SILENT = "silent"
    #: Something answers there, but not the boot that was asked for: the address was given to somebody else.
    STRANGER = "stranger"


@lru_cache
def engine_client() -> httpx.Client:
    """The HTTP client for short questions to engines."""
    # trust_env=False: a proxy of the environment has no business between us and an engine.
    return httpx.Client(timeout=_TIMEOUT_S, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def probe_engine(url: str, boot_token: str) -> Probe:
    """Ask ``GET {url}/ready`` of the boot ``boot_token``.

    :return: ``SILENT`` when no HTTP answer came in time.
    """
    try:
        response = engine_client().get(f"{url}/ready")
    except (httpx.TransportError, httpx.InvalidURL):
        return Probe.SILENT
    if response.headers.get("x-boot-id") != boot_token:
        return Probe.STRANGER
    return Probe.READY if response.status_code == 200 else Probe.NOT_READY
