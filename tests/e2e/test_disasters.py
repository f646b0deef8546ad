"""What the control plane stands on fails under it: the broker, the database, the disk, the clock. Instances that run go
on, what was asked for is done afterwards, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.providers.local import LocalProvider
from control_plane.settings import Settings
from tests.hub import models
from tests.hub.server import HubServer
from tests.support.chaos import settle
from tests.support.fleet import Api, Fleet, fresh_database, running_fleet
from tests.support.local_host import running_local_host
from tests.support.moved_clock import MovedClock
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.processes import eventually
from tests.support.redis import RedisServer, redis_server
from tests.support.small_disk import fill, on_small_disk, seen_by

pytestmark = pytest.mark.alone

MIB = 1 << 20
MODEL_BYTES = 16 * MIB
#: The download keeps 256 MiB to spare: so much is free before the first byte.
DISK_BYTES = 300 * MIB
#: Bytes that may be on their way, sent and not written, when the disk is full.
IN_FLIGHT = 2 * MIB
HOUR = 3600


@dataclass
class Site:
    """A whole Slipway whose foundations a test can pull away. ``running`` is an instance that must not notice."""

    fleet: Fleet
    api: Api
    postgres: PostgresServer
    redis: RedisServer
    hub: HubServer
    provider: LocalProvider
    clock: MovedClock
    models: Path
    running: dict[str, Any]

    def launch(self, name: str, model: str = "slipway/starter") -> str:
        return self.api.launch(name=name, model=model)

    def instance(self, instance_id: str) -> dict[str, Any]:
        return dict(self.api("GET", f"/instances/{instance_id}"))

    def terminate(self, *instance_ids: str) -> None:
        for instance_id in instance_ids:
            self.api("DELETE", f"/instances/{instance_id}")
        settle(self.api, dict.fromkeys(instance_ids, "terminated"))

    def get(self, path: str) -> httpx.Response:
        """What the web answers, whatever it is."""
        headers = {"Authorization": f"Bearer {self.fleet.api_key}"}
        return httpx.get(f"{self.fleet.urls[0]}{path}", headers=headers, timeout=60, trust_env=False)

    def now(self) -> datetime:
        """The web's clock."""
        date = self.get("/healthz").headers["date"]
        return datetime.strptime(date, "%a, %d %b %Y %H:%M:%S %Z")

    def assert_untouched(self) -> None:
        """The instance that ran before still runs, in the same boot, and answers."""
        now = self.instance(self.running["id"])
        assert (now["phase"], now["since"]) == ("running", self.running["since"])
        (name,) = (status.name for status in self.provider.list_owned())
        assert self.provider.logs(name, tail_bytes=1 << 20).count("ready http") == 1
        body = {"model": self.running["model"], "prompt": "Hello"}
        headers = {"Authorization": f"Bearer {self.fleet.api_key}"}
        url = f"{self.fleet.urls[0]}/i/{self.running['slug']}/v1/completions"
        assert httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False).status_code == 200


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, session_hub: HubServer) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("disasters")
    cache, clock = folder / "cache", MovedClock(folder / "clock")
    cache.mkdir()
    environment = {"HF_ENDPOINT": session_hub.url, "HF_HOME": str(cache), **clock.environment}
    within = {"worker": on_small_disk(cache, DISK_BYTES)}
    with postgres_server() as postgres, redis_server() as redis, fresh_database(postgres.url) as database_url:
        settings = Settings(
            data_dir=folder / "data", database_url=database_url, broker_url=redis.url, local_price_per_hour=3.6
        )
        with running_local_host(settings), running_fleet(settings, environment=environment, within=within) as fleet:
            api, provider = fleet.api(), LocalProvider.from_settings(settings)
            first = api.launch(name="first", model="slipway/starter")
            settle(api, {first: "running"})
            running = dict(api("GET", f"/instances/{first}"))
            yield Site(fleet, api, postgres, redis, session_hub, provider, clock, cache, running)
            api.close()


def test_the_broker_is_killed_and_loses_everything(site: Site) -> None:
    before = [site.launch(f"before-{number}") for number in range(2)]
    site.redis.kill()
    without = [site.launch(f"without-{number}") for number in range(2)]
    site.redis.start()
    settle(site.api, dict.fromkeys(before + without, "running"))
    site.terminate(*before, *without)
    site.assert_untouched()


def test_the_database_crashes(site: Site) -> None:
    before = [site.launch(f"early-{number}") for number in range(2)]
    site.postgres.stop()
    try:
        for path, kind in (("/api/v1/instances", "application/problem+json"), ("/instances", "text/html")):
            answer = site.get(path)
            assert answer.status_code == 503, answer.text
            assert answer.headers["content-type"].startswith(kind)
            assert "the database does not answer" in answer.text
    finally:
        site.postgres.start()
    settle(site.api, dict.fromkeys(before, "running"))
    site.terminate(*before)
    site.assert_untouched()


@pytest.mark.parametrize("offset_s", [HOUR, -HOUR])
def test_the_clock_jumps(site: Site, offset_s: int) -> None:
    before = site.launch(f"by-{offset_s}")
    real = site.now()
    site.clock.set(offset_s)
    try:
        eventually(lambda: abs((site.now() - real).total_seconds() - offset_s) < HOUR / 2, "the clock has moved")
        after = site.launch(f"after-{offset_s}")
        settle(site.api, {before: "running", after: "running"})
        assert all(site.instance(one)["cost_so_far"] >= 0 for one in (before, after))
    finally:
        site.clock.set(0)
        eventually(lambda: abs((site.now() - real).total_seconds()) < HOUR / 2, "the clock is back")
    site.terminate(before, after)
    site.assert_untouched()


def test_the_disk_is_full_in_the_middle_of_a_download(site: Site, tmp_path: Path) -> None:
    folder = models.big_model(tmp_path / "model", MODEL_BYTES)
    site.hub.add_repo("org/large", folder)
    site.hub.forget()
    site.hub.faults.rate(MODEL_BYTES / 8, "/cdn/*")
    disk = seen_by(site.fleet.pid("worker-0"), site.models)
    instance_id = site.launch("large", "org/large")
    eventually(lambda: site.hub.bytes_sent("padding.safetensors") > MIB, "the download is under way", 60)
    ballast = fill(disk, MIB)
    settle(site.api, {instance_id: "failed"})
    failed = site.instance(instance_id)
    assert "the disk is full" in failed["reason"]
    assert "Free space" in failed["next_step"]

    ballast.unlink()
    site.hub.faults.clear()
    site.api("POST", f"/instances/{instance_id}/start")
    # No further than this: the small disk is the worker's alone, and the engine would not find the weights.
    eventually(lambda: site.instance(instance_id)["download"]["state"] == "done", "the weights are there", 60)
    assert site.hub.bytes_sent("padding.safetensors") <= (folder / "padding.safetensors").stat().st_size + IN_FLIGHT
    site.terminate(instance_id)
    site.assert_untouched()
