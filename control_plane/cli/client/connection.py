"""Which server to talk to, and as whom."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from control_plane import client_file
from control_plane.cli.configuration import load_settings
from control_plane.client_file import ClientFile
from control_plane.errors import Invalid, Unauthenticated, Unavailable

HOW_TO_START = "Start it with 'slipway up' (or 'make up'), or set SLIPWAY_URL to a server that runs."


def find_server() -> ClientFile:
    """``SLIPWAY_URL`` and ``SLIPWAY_API_KEY``; what is missing comes from the data folder's ``client.json``.

    The key in that file goes to the server that it was made for, and to no other.

    :raises Unavailable: no server is known.
    :raises Unauthenticated: a server, but no key for it.
    :raises Invalid: ``SLIPWAY_URL`` is no HTTP address.
    """
    url = os.environ.get("SLIPWAY_URL", "").strip().rstrip("/")
    api_key = os.environ.get("SLIPWAY_API_KEY", "").strip()
    if url and not _is_http(url):
        raise Invalid("SLIPWAY_URL is not an HTTP address", "Set it like http://127.0.0.1:8000.")
    if url and api_key:
        return ClientFile(url, api_key)
    data_dir = load_settings().data_dir
    kept = client_file.read(data_dir)
    if kept is None and not url:
        raise Unavailable(f"no server is known: there is no {data_dir / client_file.NAME}", HOW_TO_START)
    if not url and kept is not None:
        return ClientFile(kept.url.rstrip("/"), api_key or kept.api_key)
    if kept is not None and kept.url.rstrip("/") == url:
        return ClientFile(url, kept.api_key)
    raise Unauthenticated(f"there is no API key for {url}", "Set SLIPWAY_API_KEY; the Keys page makes one.")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that does not close
        return False
