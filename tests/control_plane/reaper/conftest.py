"""A control plane, its provider, and a reaper that looks when the test says so."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from control_plane.database import Database
from control_plane.providers.base import ReplicaSpec, Weights
from control_plane.reaper import check, repository
from control_plane.reaper.tables import Orphan, ProviderCheck
from tests.support.clock import FakeClock
from tests.support.instances import STARTER, Plant


class Reaper:
    """The scheduler's tick and what the workers do then."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant

    def look(self, *, after_s: float = 30) -> None:
        """Let time pass, then check whatever is due."""
        self.plant.clock.advance(after_s)
        for check_id in check.sweep(self.plant.context):
            check.check(self.plant.context, check_id)

    def look_until_gone(self, name: str) -> None:
        """Look until the provider does not have ``name`` any more and the reaper knows it."""
        for _ in range(8):
            self.look()
            if name not in self.plant.provider.replicas and not self.open:
                return
        raise AssertionError(f"{name} is still there: {self.open}")

    @property
    def open(self) -> list[Orphan]:
        """What is unmatched."""
        with self.plant.context.database.reading() as session:
            return repository.open_orphans(session)

    @property
    def row(self) -> ProviderCheck:
        """The fake provider's row."""
        with self.plant.context.database.reading() as session:
            row = repository.check_of(session, "fake")
            assert row is not None
            return row

    def stray(self, name: str | None = None, **labels: str) -> str:
        """Something of ours at the provider that this control plane did not create; its name."""
        name = name or f"slipway-{uuid4().hex}-0"
        weights = Weights(STARTER, None, Path("/nowhere"))
        spec = ReplicaSpec(name, "us", weights, STARTER, "fake-cpu", "key", "stray", labels=labels)
        self.plant.provider.create(spec)
        return name


@pytest.fixture
def plant(database: Database, database_url: str, clock: FakeClock, tmp_path: Path) -> Plant:
    """A control plane with one team and an empty provider."""
    return Plant.make(database, database_url, clock, tmp_path)


@pytest.fixture
def reaper(plant: Plant) -> Reaper:
    """Looks for orphans."""
    return Reaper(plant)
