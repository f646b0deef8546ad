"""The whole system as real processes, shared by the tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.server import HubServer
from tests.support.slipway import RunningSlipway
from tests.support.slipway import slipway_up as running_slipway


@pytest.fixture(scope="session")
def session_hub() -> Iterator[HubServer]:
    """The hub that the shared Slipway uses."""
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(session_hub: HubServer) -> Iterator[HubServer]:
    """The same hub, with no faults left over from another test."""
    session_hub.faults.clear()
    yield session_hub
    session_hub.faults.clear()


@pytest.fixture(scope="session")
def slipway_up(tmp_path_factory: pytest.TempPathFactory, session_hub: HubServer) -> Iterator[RunningSlipway]:
    """``slipway up`` with the embedded defaults; the starter runs. Leave it running, with nothing else in it."""
    with running_slipway(tmp_path_factory.mktemp("up") / "data", session_hub) as slipway:
        yield slipway
