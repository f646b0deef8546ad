"""The whole control plane goes away and comes back: engines serve on meanwhile, and are found again as they were."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from control_plane.providers.local import LocalProvider
from control_plane.settings import Settings
from tests.support.fleet import Api, fresh_database, running_fleet
from tests.support.local_host import running_local_host
from tests.support.processes import eventually

pytestmark = pytest.mark.alone


def in_phase(api: Api, phase: str) -> bool:
    return [instance["phase"] for instance in api.instances(live=True)] == [phase] * 3


def test_engines_serve_on_and_are_found_again(postgres_server: str, redis_server: str, tmp_path: Path) -> None:
    with fresh_database(postgres_server) as database_url:
        settings = Settings(data_dir=tmp_path / "data", database_url=database_url, broker_url=redis_server)
        provider = LocalProvider.from_settings(settings)
        with running_local_host(settings):
            with running_fleet(settings, webs=2, workers=2, schedulers=2) as fleet:
                api = fleet.api()
                for name in ("a", "b", "c"):
                    api.launch(model="slipway/starter", name=name)
                eventually(lambda: in_phase(api, "running"), "three instances run", 150)
                before = {status.name: status for status in provider.list_owned()}
                direct = {i["id"]: api("GET", f"/instances/{i['id']}/direct-key") for i in api.instances(live=True)}

            # Nothing of the control plane runs. One engine dies meanwhile; the others serve.
            victim = before[min(before)]
            port = int(str(victim.url).rpartition(":")[2])
            (pid,) = {
                connection.pid
                for connection in psutil.net_connections("tcp")
                if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
            }
            serving = [access for access in direct.values() if f":{port}/" not in access["direct_url"]]
            assert len(serving) == 2
            for access in serving:
                headers = {"Authorization": f"Bearer {access['api_key']}"}
                assert httpx.get(f"{access['direct_url']}/models", headers=headers, trust_env=False).status_code == 200
            os.kill(pid, signal.SIGKILL)

            with running_fleet(settings, webs=2, workers=2, schedulers=2) as fleet:
                api = Api(fleet.urls, fleet.api_key)

                def repaired() -> bool:
                    now = {status.name: status for status in provider.list_owned()}
                    return now.keys() == before.keys() and now[victim.name].boot_token != victim.boot_token

                eventually(repaired, "the engine that died is started again", 150)
                eventually(lambda: in_phase(api, "running"), "three instances run", 150)
                after = {status.name: status for status in provider.list_owned()}
                for name in before.keys() - {victim.name}:
                    assert after[name] == before[name], "an engine that served on was not touched"
                for instance in api.instances(live=True):
                    api("DELETE", f"/instances/{instance['id']}")
                eventually(lambda: provider.list_owned() == [], "nothing is left", 150)
