"""The docker provider: replicas are containers, run by Docker or by Podman through the same API.

A container is found by its name, which is deterministic, and is ours only if it carries our tag. What this process
knows beside that lies in files of the data folder: who pulls an image, which deadline an ending has, the copied log.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from docker.api import APIClient
from docker.errors import APIError

from control_plane.errors import SlipwayError
from control_plane.providers.base import HardwareOffer, ProviderError, ReplicaSpec, ReplicaState, ReplicaStatus
from control_plane.providers.docker_api import body, gpus
from control_plane.providers.docker_api.connection import Connection, is_final, is_gone, is_podman, is_taken, status_of
from control_plane.providers.docker_api.container_log import ContainerLog
from control_plane.providers.docker_api.endings import Endings
from control_plane.providers.docker_api.images import ImagePulls
from control_plane.providers.docker_api.network import ensure_network
from control_plane.providers.docker_api.offers import NO_GPUS_IN_PODMAN, by_kind, offers
from control_plane.providers.docker_api.options import DockerOptions, Gpu
from control_plane.providers.docker_api.state import Container, parse_time
from control_plane.settings import Settings

logger = logging.getLogger(__name__)


class DockerProvider:
    """Runs each replica as one container of the serving image: unprivileged, read-only, with a network of its own."""

    name = "docker"
    exact = False  # Docker may be cut off, or another one may answer at its address

    def __init__(self, options: DockerOptions) -> None:
        self._options = options
        self._connection = Connection(options)
        self._pulls = ImagePulls(self._connection, options.run_dir)
        self._endings = Endings(self._connection, self._remove)

    @classmethod
    def from_settings(cls, settings: Settings) -> DockerProvider:
        """The provider that the block ``docker_*`` of ``settings`` describes.

        :raises Invalid: a setting that cannot work.
        """
        return cls(DockerOptions.from_settings(settings))

    def offers(self) -> list[HardwareOffer]:
        """The host's processors, then its GPUs by kind."""
        return offers(self._connection, self._options)

    def create(self, spec: ReplicaSpec) -> ReplicaStatus:
        """Start a replica, or return the one that already has this name. It is pending while its image is pulled, and
        while no device has room for it."""
        body.check(spec)
        model = body.model_of(spec.weights, self._options)
        with self._creating(spec.name), self._connection.client() as client:
            present = self._find(client, spec.name)
            if present is not None and not present.runs and present.boot_token != spec.boot_token:
                self._remove(client, present)
                present = None
            if present is None:
                made = self._make(client, spec, model)
                if isinstance(made, str):
                    return self._wait(spec, made)
                present = made
            if not present.started and present.boot_token == spec.boot_token:
                present = self._start(client, present, spec)
            return present.status()

    def find(self, name: str) -> ReplicaStatus:
        """The replica of this name; ``ABSENT`` if there is none."""
        with self._connection.client() as client:
            container = self._find(client, name)
            if container is None:
                return self._waiting(name)
            return container.status(now=_docker_time(client) if not container.started else None)

    def list_owned(self) -> list[ReplicaStatus]:
        """Every container here that carries our owner tag."""
        found = []
        with self._connection.client() as client:
            now = _docker_time(client)
            tag = f"{body.OWNER_LABEL}={self._options.owner}"
            for summary in client.containers(all=True, filters={"label": [tag]}):
                container = _inspect(client, summary["Id"])
                if container is not None:
                    found.append(container.status(now=now))
        return found

    def delete(self, name: str, *, boot_token: str | None, grace_s: float) -> None:
        """Begin to end a replica and return; a thread waits for it. Deleting what is absent is fine."""
        if boot_token in {None, self._waiting_note(name).get("boot_token")}:
            self._waiting_file(name).unlink(missing_ok=True)
        with self._connection.client() as client:
            container = self._find(client, name)
            if container is None or boot_token not in {None, container.boot_token}:
                return
            if container.runs and grace_s > 0:
                self._endings.begin(client, container, self._folder(name), grace_s)
            else:
                self._remove(client, container)

    def logs(self, name: str, *, tail_bytes: int) -> str:
        """The last ``tail_bytes`` of the replica's log; kept after its death and after its container."""
        return self._fresh_log(name).store.tail(tail_bytes).text

    def follow_logs(self, name: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """New log text from ``offset`` (bytes) on, or from that far before the end where it is negative."""
        return self._fresh_log(name).store.follow(offset)

    def _find(self, client: APIClient, name: str) -> Container | None:
        """The container of this name, if it is ours."""
        container = _inspect(client, name)
        return container if container and container.owner == self._options.owner else None

    def _make(self, client: APIClient, spec: ReplicaSpec, model: body.Model) -> Container | str:
        """Create the container, or say what has to be waited for.

        :raises ProviderError: it cannot be started here.
        """
        podman = is_podman(client)
        kind = self._kind(spec, podman=podman)
        if words := self._pulls.waiting_for(client, self._options.image):
            return words
        chosen = gpus.choose(spec, kind, gpus.holdings(client, kind)) if kind else ()
        if isinstance(chosen, gpus.NoRoom):
            return chosen.reason
        network = ensure_network(client, self._options, podman=podman)
        config = body.container_body(spec, model, self._options, network=network, devices=chosen)
        try:
            client.create_container_from_config(config, spec.name)
        except APIError as error:
            if not is_taken(error):
                raise
        container = self._find(client, spec.name)
        if container is None:
            detail = f"the name {spec.name} is taken by a container that is not this installation's"
            raise ProviderError(detail, f"Remove it on the Docker host: docker rm -f {spec.name}.")
        if kind and gpus.overtaken(container.id, kind, gpus.holdings(client, kind)):
            self._remove(client, container)
            return "another replica was quicker to take the device"
        return container

    def _kind(self, spec: ReplicaSpec, *, podman: bool) -> list[Gpu]:
        """The devices to choose from; none for processors.

        :raises ProviderError: there is no such hardware, or it can never be enough.
        """
        if spec.hardware_id == body.CPU_HARDWARE:
            return []
        kind = by_kind(gpus.devices(self._options)).get(spec.hardware_id)
        if kind is None:
            detail = f"the Docker host has no hardware {spec.hardware_id!r}"
            raise ProviderError(detail, "Choose one that GET /hardware lists.")
        if podman:
            raise ProviderError(
                NO_GPUS_IN_PODMAN, "Choose other hardware, or set SLIPWAY_DOCKER_HOST to Docker's socket."
            )
        if not 0 < spec.accelerator_count <= len(kind):
            detail = f"{spec.accelerator_count} devices of {spec.hardware_id} are asked for, and it has {len(kind)}"
            raise ProviderError(detail, "Choose other hardware, or a smaller model.")
        return kind

    def _start(self, client: APIClient, container: Container, spec: ReplicaSpec) -> Container:
        """Hand over the key and start. What can never start is removed again."""
        try:
            client.put_archive(container.id, body.SECRETS, body.key_archive(spec.api_key, self._options.user))
            client.start(container.id)
        except APIError as error:
            if is_final(error):
                self._remove(client, container)
            raise
        return self._find(client, spec.name) or container

    def _remove(self, client: APIClient, container: Container) -> None:
        """Remove a container and its volume; its log stays."""
        self._copy_log(client, container)
        try:
            client.remove_container(container.id, v=True, force=True)
        except APIError as error:
            if not is_gone(error) and status_of(error) != 409:  # 409: its removal has begun
                raise

    # What this machine's processes tell each other.

    def _folder(self, name: str) -> Path:
        return self._options.instances_dir / name

    @contextmanager
    def _creating(self, name: str) -> Iterator[None]:
        """One process at a time: a second one would replace the key file under a starting engine's hands."""
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / "docker-create.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _waiting_file(self, name: str) -> Path:
        return self._folder(name) / "docker-waiting.json"

    def _wait(self, spec: ReplicaSpec, reason: str) -> ReplicaStatus:
        """Pending for ``reason``, and remembered as such: nothing in Docker says so yet."""
        note = {"boot_token": spec.boot_token, "image": self._options.image, "labels": dict(spec.labels)}
        self._waiting_file(spec.name).write_text(json.dumps(note))
        return ReplicaStatus(spec.name, ReplicaState.PENDING, spec.boot_token, reason=reason, labels=spec.labels)

    def _waiting(self, name: str) -> ReplicaStatus:
        """Pending while its image is being pulled; else absent, so that whoever looks creates it."""
        note = self._waiting_note(name)
        reason = self._pulls.progress(note["image"]) if note else None
        if reason is None:
            return ReplicaStatus(name, ReplicaState.ABSENT)
        return ReplicaStatus(name, ReplicaState.PENDING, note["boot_token"], reason=reason, labels=note["labels"])

    def _waiting_note(self, name: str) -> dict[str, Any]:
        """What :meth:`_wait` noted; empty where nothing waits, or the note was cut short by a crash."""
        with suppress(OSError, ValueError):
            return dict(json.loads(self._waiting_file(name).read_text()))
        return {}

    # Logs.

    def _log(self, name: str) -> ContainerLog:
        return ContainerLog(self._folder(name))

    def _fresh_log(self, name: str) -> ContainerLog:
        """The log with what is new; the copy alone while Docker does not answer."""
        try:
            with self._connection.client(10.0) as client:
                container = self._find(client, name)
                if container is not None and container.started:
                    self._log(name).copy_new(client, container.id)
        except (SlipwayError, OSError) as error:  # Docker is away, or the disk is full
            logger.debug("only the copy of the log of %s can be read: %s", name, error)
        return self._log(name)

    def _copy_log(self, client: APIClient, container: Container) -> None:
        """Before it is removed. A log that cannot be read is no reason to keep what should go."""
        if not container.started:
            return
        try:
            self._log(container.name).copy_new(client, container.id)
        except OSError as error:  # of Docker's client too
            if not (isinstance(error, APIError) and is_gone(error)):
                logger.warning("the last log of %s is lost: %s", container.name, error)


def _inspect(client: APIClient, name: str) -> Container | None:
    try:
        return Container(client.inspect_container(name))
    except APIError as error:
        if not is_gone(error):
            raise
        return None


def _docker_time(client: APIClient) -> datetime:
    return parse_time(str(client.info()["SystemTime"]))
