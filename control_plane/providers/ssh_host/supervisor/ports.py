"""Choosing a port so that nobody else can be given it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def reserved_port(address: str | None) -> Iterator[int]:
    """A free port of ``address``, held while the replica lives: bound, never listened on; 0 where there is no address.

    The engine may bind it too because both set SO_REUSEADDR, which Linux permits as long as neither listens yet.

    :raises OSError: the address is not one of this machine's.
    """
    if address is None:
        yield 0
        return
    family, kind, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(place)
        yield reservation.getsockname()[1]
