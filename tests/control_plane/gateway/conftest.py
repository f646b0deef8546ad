"""A gateway over real HTTP in front of a real engine process: the tiny one, run by a real local host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from control_plane.accounts import api_keys
from control_plane.app import create_app
from control_plane.database import Database
from control_plane.instances import repository
from control_plane.instances.replicas import resource_name
from control_plane.instances.schemas import InstanceView
from control_plane.keys import replica_key
from control_plane.providers.base import ReplicaSpec, Weights
from control_plane.providers.local import LocalProvider
from control_plane.settings import Settings
from tests.support.clock import FakeClock
from tests.support.http import serving
from tests.support.instances import Plant
from tests.support.local_host import make_model, running_local_host
from tests.support.processes import eventually


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    """A local host with tiny engines, for all tests of the gateway."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("engines"))
    with running_local_host(settings):
        yield LocalProvider.from_settings(settings)


@pytest.fixture
def plant(database: Database, database_url: str, clock: FakeClock, tmp_path: Path) -> Plant:
    return Plant.make(database, database_url, clock, tmp_path)


@pytest.fixture
def running(plant: Plant, engines: LocalProvider, tmp_path: Path) -> Callable[..., InstanceView]:
    """Launches an instance that is running, with a real engine behind its (fake) provider's replica."""
    return lambda **fields: run_an_engine(plant, engines, tmp_path, **fields)


def run_an_engine(plant: Plant, engines: LocalProvider, folder: Path, **fields: object) -> InstanceView:
    """What the fixture ``running`` does."""
    launched = plant.launch(**fields)  # type: ignore[arg-type]
    plant.run_until(launched.id, "running")
    name = resource_name(plant.row(launched.id), 0)
    (replica,) = plant.replicas(launched.id)
    key = replica_key(plant.context.settings, name, replica.boot_token)
    weights = Weights(launched.model, None, make_model(folder / "model"))
    spec = ReplicaSpec(name, "test", weights, launched.model, "local-cpu", key, replica.boot_token)
    url = engines.create(spec).url
    eventually(lambda: _ready(url), "the engine is ready")
    with plant.context.database.transaction() as session:
        repository.update_replica(session, plant.replicas(launched.id)[0].id, {"url": url})
    return plant.get(launched.id)


def _ready(url: str | None) -> bool:
    try:
        return httpx.get(f"{url}/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def server(plant: Plant) -> Iterator[str]:
    """The whole application's URL."""
    with serving(create_app(plant.context)) as url:
        yield url


@pytest.fixture
def client(plant: Plant, server: str) -> Iterator[httpx.Client]:
    """A caller with the team's key."""
    key = api_keys.create(plant.context, plant.principal, name="test").secret
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=server, headers=headers, trust_env=False, timeout=20) as client:
        yield client
