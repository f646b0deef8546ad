"""Launches and terminations at once while web, worker and scheduler are killed again and again, on PostgreSQL and a
real Redis. (Fifty at once, in three rounds, is ``make test-proof``.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.providers.local import LocalProvider
from control_plane.settings import Settings
from tests.support.chaos import Chaos, check_books
from tests.support.fleet import fresh_database, running_fleet
from tests.support.local_host import running_local_host

pytestmark = pytest.mark.alone

LAUNCHES = 8


def test_nothing_is_lost_or_left_when_everything_is_killed(
    postgres_server: str, redis_server: str, tmp_path: Path
) -> None:
    with fresh_database(postgres_server) as database_url:
        settings = Settings(
            data_dir=tmp_path / "data", database_url=database_url, broker_url=redis_server, local_price_per_hour=3.6
        )
        with running_local_host(settings), running_fleet(settings, workers=2) as fleet:
            body = {"model": "slipway/starter"}
            report = Chaos(fleet, LAUNCHES, body, kill_every_s=1.0).run(rounds=1)
            assert sum(report.kills.values()) >= 2
            provider = LocalProvider.from_settings(settings)
            check_books(fleet, provider, LAUNCHES)
            for folder in settings.instances_dir.iterdir():
                log = provider.logs(folder.name, tail_bytes=100_000)
                assert log.count("ready http") == 1, "an engine was started twice"
