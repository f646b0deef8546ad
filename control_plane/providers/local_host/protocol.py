"""How the local host is asked: one JSON object per line over a Unix socket, one request per connection.

The socket's mode (0600) is the authentication: who may open it may already read the data folder.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from control_plane.providers.base import ProviderError, ProviderUnavailable

#: No request is larger; a line that goes on longer is refused.
MAX_LINE = 1 << 20

NEXT_STEP_WHEN_AWAY = "It is started again by 'slipway up' within seconds; look at its log if it is not."


@contextmanager
def unix_address(path: Path) -> Iterator[str]:
    """An address for ``path`` to bind or connect to, however long the path is (the kernel takes 107 bytes)."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def call(path: Path, operation: str, *, timeout_s: float, **arguments: Any) -> Any:
    """Ask the host that listens at ``path``.

    :raises ProviderUnavailable: nobody answered; the outcome is unknown.
    :raises ProviderError: it refused.
    """
    request = json.dumps({"operation": operation, **arguments}).encode() + b"\n"
    try:
        with unix_address(path) as address, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(address)
            connection.sendall(request)
            with connection.makefile("rb") as file:
                line = file.readline()
    except OSError as error:
        detail = f"the local host, which runs engines on this machine, does not answer ({error.strerror or error})"
        raise ProviderUnavailable(detail, NEXT_STEP_WHEN_AWAY) from error
    if not line.endswith(b"\n"):
        raise ProviderUnavailable("the local host ended in the middle of an answer", NEXT_STEP_WHEN_AWAY)
    reply = json.loads(line)
    if "error" in reply:
        kind = ProviderUnavailable if reply["error"] == ProviderUnavailable.code else ProviderError
        raise kind(reply["detail"], reply["next_step"])
    return reply["result"]
