"""The TCP socket that the server listens on, bound before anything slow starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from serving_image.errors import StartupError


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Bind ``host``:``port`` (0: a free one) and close it at the end.

    :raises StartupError: the address does not exist here, or is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise StartupError(f"Cannot listen on {host}: no such address.", "Name an address of this machine.") from error
    with listener:
        # Without it a restart within a minute finds the port in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            message = f"Cannot listen on {host}:{port}: {reason}."
            raise StartupError(message, "Choose another --port; 0 takes a free one.") from error
        yield listener


def base_url(listener: socket.socket) -> str:
    """The URL of a bound socket, e.g. ``http://127.0.0.1:8000``."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
