"""The docker provider on Podman and on dockerd: what every provider does, and what a container is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control_plane.providers.contract import ProviderContract
from tests.support.docker_site import IMAGE, DockerSite
from tests.support.dockerd import running_dockerd
from tests.support.podman import running_podman
from tests.support.rootfs import tiny_image_tar


@pytest.fixture(scope="module")
def image_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_image_tar(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module", params=["podman", "dockerd"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, image_tar: Path
) -> Iterator[DockerSite]:
    running = running_podman if request.param == "podman" else running_dockerd
    with running() as daemon:
        daemon.import_image(image_tar, IMAGE)
        yield DockerSite.make(daemon, tmp_path_factory.mktemp(request.param))


class TestContract(ProviderContract):
    """On both."""
