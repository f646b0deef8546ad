"""The docker provider on a real Docker API, with ``tiny_engine.py`` as the serving image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker.api import APIClient

from control_plane.keys import installation_id
from control_plane.providers.base import ReplicaSpec, Weights
from control_plane.providers.docker import DockerProvider
from control_plane.settings import Settings
from tests.support.dockerd import Dockerd
from tests.support.local_host import make_model
from tests.support.podman import Podman

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
