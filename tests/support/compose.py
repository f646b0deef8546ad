"""``docker/compose.yaml``, brought up by podman-compose on a Podman of its own."""

from __future__ import annotations

import os
import secrets
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.podman import Podman
from tests.support.processes import eventually

FILE = Path(__file__).parents[2] / "docker" / "compose.yaml"
#: The user of our images.
_UID = 10001
#: The group that owns the daemon's socket.
_GID = 4242
#: Where the daemon's socket is for the containers; the sandbox's own /run.
_SOCKET = "/run/docker.sock"
#: Podman, with its own places. podman-compose starts things in order, and also tells Podman what requires what; there
#: Podman 4.3 fails, because it would start what has ended, as a migration has, together with its dependents.
_PROGRAM = """#!/bin/sh
for argument; do
    shift
    case "$argument" in --requires=*) ;; *) set -- "$@" "$argument" ;; esac
done
exec {podman} "$@"
"""


@dataclass
class Compose:
    """One that is up. ``client`` speaks HTTPS with its Caddy, and trusts nobody else."""

    podman: Podman
    environment: dict[str, str]
    program: Path
    client: httpx.Client

    def run(self, *arguments: str, timeout_s: float = 250) -> str:
        """A ``podman-compose`` command; what it printed."""
        return _run(self.podman, self.environment, self.program, *arguments, timeout_s=timeout_s)


class _Here(httpx.HTTPTransport):
    """Requests for ``https://localhost`` go to ``address``, whose certificate must be for ``localhost``."""

    def __init__(self, address: str, trust: ssl.SSLContext) -> None:
        super().__init__(verify=trust)
        self._address = address

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return super().handle_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host=self._address),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": "localhost"},
            )
        )


@contextmanager
def compose_up(podman: Podman, folder: Path) -> Iterator[Compose]:
    """Bring everything up as the file's first lines say; what is in ``folder`` stays."""
    os.chown(folder, _UID, _UID)
    daemon = Path(podman.docker_host.removeprefix("unix://"))
    os.chown(daemon, 0, _GID)
    daemon.chmod(0o660)
    podman.sandbox.run(["ln", "-s", str(daemon), _SOCKET])
    program = podman.folder / "podman"
    program.write_text(_PROGRAM.format(podman=" ".join(podman.argv())))
    program.chmod(0o755)
    environment = podman.environment | {
        "SLIPWAY_SECRET_KEY": secrets.token_hex(32),
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "DOCKER_GID": str(_GID),
        "SLIPWAY_DIR": str(folder),
        "DOCKER_BRIDGE_ADDRESS": podman.publish_address,
    }
    _run(podman, environment, program, "up", "--detach", "--no-build")
    trust = ssl.create_default_context(cadata=_authority(podman, environment, program))
    transport = _Here(podman.publish_address, trust)
    with httpx.Client(base_url="https://localhost", transport=transport, timeout=60) as client:
        eventually(lambda: _answers(client), "Slipway answers behind Caddy", 120)
        yield Compose(podman, environment, program, client)


def _authority(podman: Podman, environment: dict[str, str], program: Path) -> str:
    """The certificate of Caddy's own authority."""
    found: list[str] = []

    def there() -> bool:
        path = "/data/caddy/pki/authorities/local/root.crt"
        try:
            found.append(_run(podman, environment, program, "exec", "-T", "caddy", "cat", path))
        except RuntimeError:
            return False
        return True

    eventually(there, "Caddy has an authority", 60)
    return found[0]


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _run(podman: Podman, environment: dict[str, str], program: Path, *arguments: str, timeout_s: float = 250) -> str:
    argv = [sys.executable, "-m", "podman_compose", "--podman-path", str(program), "-f", str(FILE), *arguments]
    return podman.sandbox.run(argv, environment=environment, timeout_s=timeout_s).stdout
