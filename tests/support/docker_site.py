"""The docker provider on a real Docker API, with ``tiny_engine.py`` as the serving image."""

from __future__ import annotations

import json
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from docker.api import APIClient

from control_plane.keys import installation_id
from control_plane.providers.base import HardwareOffer, ReplicaSpec, Weights
from control_plane.providers.docker import DockerProvider
from control_plane.settings import Settings
from tests.support.dockerd import Dockerd
from tests.support.local_host import make_model
from tests.support.podman import Podman
from tests.support.processes import eventually

IMAGE = "localhost/tiny-engine:1"
KEY = "key-of-the-replica"


@dataclass
class DockerSite:
    """A daemon, and the provider of two installations on it."""

    daemon: Podman | Dockerd
    folder: Path
    settings: Settings
    provider: DockerProvider
    other_installation: DockerProvider

    @classmethod
    def make(cls, daemon: Podman | Dockerd, folder: Path, **settings: object) -> DockerSite:
        """One on ``daemon``, which has the image :data:`IMAGE`; ``settings`` are more of the provider's."""
        values = {
            "docker_host": daemon.docker_host,
            "docker_publish_address": daemon.publish_address,
            "docker_serving_image": IMAGE,
        } | settings
        ours = Settings(data_dir=folder / "ours", secret_key="the root secret of a test", **values)
        others = Settings(data_dir=folder / "others", secret_key="another root secret", **values)
        make_provider = DockerProvider.from_settings
        return cls(daemon, folder, ours, make_provider(ours), make_provider(others))

    def spec(self, name: str, boot_token: str, **behaviour: object) -> ReplicaSpec:
        """A replica on the processors."""
        model = make_model(self.folder / "models" / f"{name}-{len(behaviour)}", **behaviour)
        return ReplicaSpec(
            name=name,
            owner=self.owner,
            weights=Weights("org/model", "ab" * 20, model),
            served_model_name="org/model",
            hardware_id="docker-cpu",
            api_key=KEY,
            boot_token=boot_token,
            labels={"instance": "of-a-test", "replica": "0"},
        )

    @property
    def owner(self) -> str:
        """Our tag."""
        return installation_id(self.settings)

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        """Without its service."""
        self.daemon.stop_service()
        try:
            yield
        finally:
            self.daemon.start_service()

    def client(self) -> AbstractContextManager[APIClient]:
        """Docker's API, without the provider."""
        return closing(APIClient(self.daemon.docker_host, version="1.41", timeout=60))

    def offer(self) -> HardwareOffer:
        """What it offers of its GPUs."""
        (offer,) = [offer for offer in self.provider.offers() if offer.accelerator_count]
        return offer

    def gpu_spec(self, name: str, count: int, memory_bytes: int) -> ReplicaSpec:
        """A replica on ``count`` devices of the kind NVIDIA H200."""
        spec = self.spec(name, "boot-1", print_environment=True)
        return replace(spec, hardware_id="docker-nvidia-h200", accelerator_count=count, memory_bytes=memory_bytes)

    def devices(self, name: str) -> tuple[set[str], str]:
        """Which devices Docker was asked for, and what the container was told that it has."""
        (request,) = self.inspect(name)["HostConfig"]["DeviceRequests"]
        assert request["Capabilities"] == [["gpu"]]
        eventually(lambda: "ready http" in self.provider.logs(name, tail_bytes=8192), "the engine is up")
        log = self.provider.logs(name, tail_bytes=8192)
        told = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
        return set(request["DeviceIDs"]), told["NVIDIA_VISIBLE_DEVICES"]

    def inspect(self, name: str) -> dict[str, Any]:
        """All that Docker says about a container."""
        with self.client() as client:
            return dict(client.inspect_container(name))

    def run_inside(self, name: str, *argv: str) -> str:
        """Run a command in a replica's container, as its user; what it printed.

        :raises RuntimeError: it failed; carries what it said.
        """
        with self.client() as client:
            execution = client.exec_create(name, list(argv))
            output = bytes(client.exec_start(execution)).decode().strip()
            if code := client.exec_inspect(execution)["ExitCode"]:
                raise RuntimeError(f"{argv} ended with {code}: {output}")
            return output

    def waiting(self) -> list[str]:
        """Names of replicas that wait for something in Docker, as far as this installation's workers know."""
        return [path.parent.name for path in self.settings.instances_dir.glob("*/docker-waiting.json")]

    @contextmanager
    def request_in_flight(self, url: str | None) -> Iterator[None]:
        """While it lasts an engine is busy with a request."""
        body = {"model": "m", "stream": True, "max_tokens": 200}
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.stream(
            "POST", f"{url}/v1/completions", json=body, headers=headers, timeout=30, trust_env=False
        ) as answer:
            next(answer.iter_lines())
            yield


def killed_before(call: str, site: DockerSite, spec: ReplicaSpec, *, delete_grace_s: float | None = None) -> None:
    """A worker that creates or deletes a replica and is killed before its first ``call`` of Docker's API; an empty
    ``call`` means at the end.

    The worker is a fork of this process, as Celery's are: a second to start one would add up.
    """
    worker = os.fork()
    if worker == 0:
        try:
            _work_until_killed(call, site, spec, delete_grace_s)
        finally:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(worker, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise RuntimeError(f"the worker was not killed: {status}")


def _work_until_killed(call: str, site: DockerSite, spec: ReplicaSpec, delete_grace_s: float | None) -> None:
    def die(*_arguments: object, **_named: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if call:
        setattr(APIClient, call, die)
    provider = DockerProvider.from_settings(site.settings)
    if delete_grace_s is None:
        provider.create(spec)
    else:
        provider.delete(spec.name, boot_token=None, grace_s=delete_grace_s)
    if call:
        threading.Event().wait(60)  # for the thread that makes the call
    die()
