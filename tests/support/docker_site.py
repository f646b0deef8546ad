"""The docker provider on a real Docker API, with ``tiny_engine.py`` as the serving image."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from docker.api import APIClient

from control_plane.keys import installation_id
from control_plane.providers.base import HardwareOffer, ReplicaSpec, Weights
from control_plane.providers.docker import DockerProvider
from control_plane.providers.wire import spec_to_json
from control_plane.settings import Settings
from tests.support.dockerd import Dockerd
from tests.support.local_host import make_model
from tests.support.podman import Podman

IMAGE = "localhost/tiny-engine:1"
KEY = "key-of-the-replica"
SECRET = "the root secret of a test"


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
        ours = Settings(data_dir=folder / "ours", secret_key=SECRET, **values)
        others = Settings(data_dir=folder / "others", secret_key="another root secret", **values)
        make_provider = DockerProvider.from_settings
        return cls(daemon, folder, ours, make_provider(ours), make_provider(others))

    def spec(self, name: str, boot_token: str, **behaviour: object) -> ReplicaSpec:
        """A replica on the processors."""
        model = make_model(self.folder / "models" / f"{name}-{len(behaviour)}", **behaviour)
        return ReplicaSpec(
            name=name,
            owner=self.owner,
            weights=Weights("org/model", None, model),
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


_WORKER = """
import json, os, signal, sys, threading
from docker.api import APIClient
from control_plane.providers.docker import DockerProvider
from control_plane.providers.wire import spec_from_json
from control_plane.settings import get_settings

def die(*_args, **_arguments):
    os.kill(os.getpid(), signal.SIGKILL)

request = json.load(sys.stdin)
if request["before"]:
    setattr(APIClient, request["before"], die)
provider, spec = DockerProvider.from_settings(get_settings()), spec_from_json(request["spec"])
provider.create(spec) if request["grace_s"] is None else provider.delete(spec.name, grace_s=request["grace_s"])
if request["before"]:
    threading.Event().wait(60)
die()
"""


def killed_before(call: str, site: DockerSite, spec: ReplicaSpec, *, delete_grace_s: float | None = None) -> None:
    """A worker that creates or deletes a replica and is killed before its first ``call`` of Docker's API; an empty
    ``call`` means at the end."""
    request = {"before": call, "spec": spec_to_json(spec), "grace_s": delete_grace_s}
    environment = site.settings.child_environment() | {"SLIPWAY_SECRET_KEY": SECRET}
    done = subprocess.run(
        [sys.executable, "-c", _WORKER],
        input=json.dumps(request),
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=90,
        check=False,
    )
    if done.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the worker was not killed: {done.returncode}\n{done.stderr}")
