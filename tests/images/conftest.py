"""Slipway's images, built once for all tests here: minutes each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.images import build, building_podman
from tests.support.podman import Podman


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Builds take longer than a test may."""
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def builder() -> Iterator[Podman]:
    """A Podman that may download."""
    with building_podman() as podman:
        yield podman


@pytest.fixture(scope="session")
def serving_image(builder: Podman) -> str:
    """The engine's image, for processors."""
    return build(builder, "serving_image")


@pytest.fixture(scope="session")
def control_plane_image(builder: Podman) -> str:
    """The image of every role."""
    return build(builder, "control_plane")
