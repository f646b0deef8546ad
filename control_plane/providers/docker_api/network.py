"""The network that replicas are in: one of our own, where they cannot reach each other."""

from __future__ import annotations

import fcntl
from pathlib import Path

from docker.api import APIClient
from docker.errors import APIError, NotFound

from control_plane.providers.docker_api.body import OWNER_LABEL
from control_plane.providers.docker_api.connection import status_of
from control_plane.providers.docker_api.options import DockerOptions


def ensure_network(client: APIClient, options: DockerOptions, *, podman: bool) -> str:
    """The network's name, which is there. It stays: it costs nothing and holds nothing."""
    if options.network:
        return options.network
    name = f"slipway-{options.owner}"
    if _exists(client, name):
        return name
    options.run_dir.mkdir(parents=True, exist_ok=True)
    with (Path(options.run_dir) / "docker-network.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Docker takes two networks of one name, and then knows neither
        if not _exists(client, name):
            _create(client, name, options.owner, podman=podman)
    return name


def _exists(client: APIClient, name: str) -> bool:
    try:
        client.inspect_network(name)
    except NotFound:
        return False
    return True


def _create(client: APIClient, name: str, owner: str, *, podman: bool) -> None:
    isolation = {} if podman else {"com.docker.network.bridge.enable_icc": "false"}
    try:
        client.create_network(
            name, driver="bridge", options=isolation, labels={OWNER_LABEL: owner}, check_duplicate=True
        )
    except APIError as error:
        if status_of(error) != 409:
            raise
