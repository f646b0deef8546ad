"""Fixtures of instances."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.database import Database
from tests.support.clock import FakeClock
from tests.support.instances import Plant


@pytest.fixture
def plant(database: Database, database_url: str, clock: FakeClock, tmp_path: Path) -> Plant:
    """A control plane with one team and an empty provider."""
    return Plant.make(database, database_url, clock, tmp_path)
