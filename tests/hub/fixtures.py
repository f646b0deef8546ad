"""Pytest fixtures of the test hub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.server import HubServer


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """An empty hub on a free loopback port."""
    with HubServer() as server:
        yield server
