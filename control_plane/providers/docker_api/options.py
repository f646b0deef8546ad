"""What the settings say about Docker, checked."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from control_plane.errors import Invalid
from control_plane.keys import installation_id
from control_plane.settings import Settings


@dataclass(frozen=True)
class Gpu:
    """A device as Docker names it: ``id`` is its index or UUID. Memory in bytes."""

    id: str
    name: str
    memory_bytes: int


@dataclass(frozen=True)
class DockerOptions:
    """One Docker or Podman service, and how replicas run there.

    :ivar owner: the tag of everything that this installation makes.
    :ivar certificates: ``ca.pem``, ``cert.pem`` and ``key.pem``, as Docker's own client has them; None without TLS.
    :ivar publish_address: the address of the Docker host at which replicas' ports are published.
    :ivar network: an existing network; empty means one of our own.
    :ivar gpus: the devices there, where they cannot be asked for.
    """

    host: str
    owner: str
    image: str
    bundled_models: str
    instances_dir: Path
    run_dir: Path
    certificates: Path | None = None
    user: str = "10001:10001"
    publish_address: str = "127.0.0.1"
    network: str = ""
    runtime: str = ""
    cpus: float | None = None
    memory_bytes: int | None = None
    price_per_hour: float = 0.0
    gpus: tuple[Gpu, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether Docker runs on this machine."""
        return self.host.startswith("unix://")

    @classmethod
    def from_settings(cls, settings: Settings) -> DockerOptions:
        """The block ``docker_*`` of ``settings``.

        :raises Invalid: a setting that cannot work, or would give the Docker host to anybody.
        """
        _check_host(settings.docker_host, settings.docker_cert_path)
        _check_user(settings.docker_user)
        if settings.docker_network == "host":
            detail = "SLIPWAY_DOCKER_NETWORK=host would give replicas every port of the Docker host"
            raise Invalid(detail, "Leave it empty, or name a network of your own.")
        return cls(
            host=settings.docker_host,
            owner=installation_id(settings),
            image=settings.docker_serving_image,
            bundled_models=settings.docker_bundled_models,
            instances_dir=settings.instances_dir,
            run_dir=settings.run_dir,
            certificates=settings.docker_cert_path,
            user=settings.docker_user,
            publish_address=settings.docker_publish_address or _address(settings.docker_host),
            network=settings.docker_network,
            runtime=settings.docker_runtime,
            cpus=settings.docker_cpus,
            memory_bytes=settings.docker_memory_bytes,
            price_per_hour=settings.docker_price_per_hour,
            gpus=_gpus(settings.docker_gpus),
        )


def _check_host(host: str, certificates: Path | None) -> None:
    parts = urlsplit(host)
    if parts.scheme not in {"unix", "tcp"}:
        detail = f"SLIPWAY_DOCKER_HOST={host!r} is no address of Docker"
        raise Invalid(detail, "Write unix:///path/of/docker.sock, or tcp://host:2376 with SLIPWAY_DOCKER_CERT_PATH.")
    if parts.scheme == "tcp" and certificates is None and not _is_loopback(parts.hostname or ""):
        detail = f"Docker at {host} without TLS obeys whoever reaches that port"
        raise Invalid(detail, "Set SLIPWAY_DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem.")
    missing = [
        name for name in ("ca.pem", "cert.pem", "key.pem") if certificates and not (certificates / name).exists()
    ]
    if missing:
        raise Invalid(f"SLIPWAY_DOCKER_CERT_PATH={certificates} has no {missing[0]}", "Put it there.")


def _check_user(user: str) -> None:
    uid, _, gid = user.partition(":")
    if not (uid.isdigit() and gid.isdigit() and int(uid) > 0 and int(gid) > 0):
        detail = f"SLIPWAY_DOCKER_USER={user!r} is not a user without privileges"
        raise Invalid(detail, "Write two numbers above 0, a user's and a group's: 10001:10001.")


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _address(host: str) -> str:
    """The address that ports are published at: Docker wants a number, not a name."""
    name = urlsplit(host).hostname
    if host.startswith("unix://") or name is None:
        return "127.0.0.1"
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        raise Invalid(f"the name of SLIPWAY_DOCKER_HOST, {name}, is unknown here", "Write its address.") from error


def _gpus(values: list[dict[str, object]]) -> tuple[Gpu, ...]:
    try:
        return TypeAdapter(tuple[Gpu, ...]).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        detail = f"SLIPWAY_DOCKER_GPUS: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise Invalid(
            detail, 'Write a list of {"id": "0", "name": "NVIDIA H200", "memory_bytes": 150754820096}.'
        ) from error
