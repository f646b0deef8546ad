"""The web's listening socket, opened before anything starts."""

from __future__ import annotations

import errno
import socket

from control_plane.errors import Conflict, Invalid

_BACKLOG = 2048


class PortInUse(Conflict):
    """Somebody else listens there."""

    code = "port_in_use"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host`` and ``port``.

    :raises PortInUse: somebody else does.
    :raises Invalid: this machine cannot listen there.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise Invalid(
            f"there is no host {host!r} to listen on", "Use --host 127.0.0.1 or an address of this machine."
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use by another program",
                f"Choose another: --port {port + 1 if port < 65535 else 8000}.",
            ) from error
        raise Invalid(
            f"cannot listen on {host}, port {port}: {error.strerror}",
            "Ports below 1024 need an administrator; the address must be one of this machine.",
        ) from error
