"""Settings that point at the local hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.settings import Settings
from tests.hub import HubServer


@pytest.fixture
def settings(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Settings(data_dir=tmp_path / "data")
