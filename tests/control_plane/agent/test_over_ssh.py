"""The whole way: an instance on a host with storage of its own; an agent brings the weights and reports by TLS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest

from control_plane.accounts.principal import Principal
from control_plane.app import create_app
from control_plane.clock import SYSTEM_CLOCK
from control_plane.context import Context
from control_plane.database import Database
from control_plane.downloads import agent_driver
from control_plane.downloads import service as downloads
from control_plane.downloads.cache_layout import ModelCache
from control_plane.instances import reconcile as instances
from control_plane.instances import service
from control_plane.instances.schemas import InstanceView, LaunchRequest
from control_plane.providers.base import ReplicaState
from control_plane.providers.ssh import SshProvider
from control_plane.settings import Settings
from tests.hub import HubServer, models
from tests.support.https import make_certificate, served
from tests.support.instances import add_principal
from tests.support.processes import alive, eventually
from tests.support.slipway import free_port
from tests.support.sshd import SshdHost, running_hosts

MIB = 1 << 20
PADDING = "padding.safetensors"


@dataclass
class Fleet:
    """A control plane with one host, and the worker that does what is due."""

    context: Context
    host: SshdHost
    principal: Principal
    hub: HubServer
    ended: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        """What sweeps and workers do, until :attr:`ended`."""
        while not self.ended.wait(0.1):
            for instance_id in instances.sweep(self.context):
                instances.reconcile(self.context, instance_id)
            for download_id in downloads.sweep(self.context):
                agent_driver.drive(self.context, download_id)

    def get(self, instance_id: UUID) -> InstanceView:
        return service.get(self.context, self.principal, instance_id)

    def wait(self, instance_id: UUID, condition: Callable[[InstanceView], object], what: str) -> InstanceView:
        seen: list[InstanceView] = []

        def there() -> object:
            seen[:] = [self.get(instance_id)]
            return condition(seen[0])

        try:
            eventually(there, what, 120)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; last: {seen[0].phase}: {seen[0].reason}") from error
        return seen[0]

    def agents(self) -> list[psutil.Process]:
        """Processes of agents on the host."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            argv = process.info["cmdline"] or []
            if "control_plane.agent" in argv and str(self.host.hub_cache) in argv:
                found.append(process)
        return found


@pytest.fixture
def fleet(tmp_path: Path, hub: HubServer, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    database_file = tmp_path / "slipway.db"
    database_file.write_bytes(migrated_sqlite.read_bytes())
    certificate, port = make_certificate(tmp_path / "tls"), free_port()
    with running_hosts(tmp_path / "hosts", "127.0.0.2") as (host,):
        settings = Settings(
            data_dir=tmp_path / "data",
            database_url=f"sqlite:///{database_file}",
            secret_key="the root secret of a test",
            agent_url=f"https://127.0.0.1:{port}",
            ssh_hosts=[host.settings(agent_ca_file=str(certificate.authority))],
        )
        database = Database(settings.database_url)
        provider = SshProvider.from_settings(settings)
        context = Context(settings, database, SYSTEM_CLOCK, {"ssh": provider}, lambda *_: None)
        fleet = Fleet(context, host, add_principal(context, "ada"), hub)
        with served(create_app(context), port, certificate), working(fleet):
            yield fleet
        database.engine.dispose()


@contextmanager
def working(fleet: Fleet) -> Iterator[None]:
    worker = threading.Thread(target=fleet.work)
    worker.start()
    try:
        yield
    finally:
        fleet.ended.set()
        worker.join(60)


def test_weights_come_to_the_host_and_survive_the_death_of_an_agent(
    fleet: Fleet, hub: HubServer, tmp_path: Path
) -> None:
    sha = hub.add_repo("org/big", models.big_model(tmp_path / "model", 6 * MIB))
    hub.faults.rate(1 * MIB, "/cdn/*")
    launched = service.launch(fleet.context, fleet.principal, LaunchRequest(model="org/big", hardware="ssh-alpha-cpu"))

    moving = fleet.wait(
        launched.id, lambda seen: seen.download and seen.download.bytes_done > 2 * MIB, "bytes arrive over there"
    )
    assert moving.phase == "downloading"
    assert moving.download is not None
    assert moving.download.bytes_per_s > 0
    assert moving.download.bytes_total == sum(file.bytes_total for file in moving.download.files)
    assert moving.cost_so_far == 0
    (agent,) = fleet.agents()
    assert not any("token" in word.lower() and "=" in word for word in agent.cmdline())
    agent.kill()
    hub.faults.clear()

    running = fleet.wait(launched.id, lambda seen: seen.phase in {"running", "failed"}, "the engine runs")
    assert running.phase == "running", running.reason
    snapshot = ModelCache(fleet.host.hub_cache, "org/big").snapshot(sha)
    assert (snapshot / PADDING).read_bytes() == (tmp_path / "model" / PADDING).read_bytes()
    size = (snapshot / PADDING).stat().st_size
    # What was on its way in each of eight connections when the agent died may come twice, and nothing else.
    assert size <= hub.bytes_sent(PADDING) <= size + 8 * 2 * 65536
    assert running.replicas[0].url is not None
    assert running.replicas[0].url.startswith("http://127.0.0.2:")
    assert httpx.get(f"{running.replicas[0].url}/ready", trust_env=False).status_code == 200
    eventually(lambda: not fleet.agents() and provider_has(fleet) == {"running"}, "the agent is removed", 60)

    service.terminate(fleet.context, fleet.principal, launched.id)
    fleet.wait(launched.id, lambda seen: seen.phase == "terminated", "it is gone")
    assert provider_has(fleet) == set()
    eventually(lambda: not alive(fleet.host.watchers()), "no supervisor is left")


def provider_has(fleet: Fleet) -> set[str]:
    """States of all that is on the host."""
    return {status.state.value for status in fleet.context.providers["ssh"].list_owned()}


def test_nobody_wants_it_any_more(fleet: Fleet, hub: HubServer, tmp_path: Path) -> None:
    hub.add_repo("org/big", models.big_model(tmp_path / "model", 4 * MIB))
    hub.faults.rate(200_000, "/cdn/*")
    launched = service.launch(fleet.context, fleet.principal, LaunchRequest(model="org/big", hardware="ssh-alpha-cpu"))
    fleet.wait(launched.id, lambda seen: seen.download and seen.download.bytes_done > 100_000, "bytes arrive")
    running = fleet.agents()
    assert running
    service.terminate(fleet.context, fleet.principal, launched.id)
    eventually(lambda: not alive(running), "the agent ends", 60)
    eventually(lambda: provider_has(fleet) <= {ReplicaState.EXITED.value}, "it does not come back", 60)
    eventually(lambda: provider_has(fleet) == set(), "it is removed", 60)
    assert (fleet.host.hub_cache / ".slipway-parts").is_dir(), "what was fetched is kept"


def test_the_bundled_model_is_copied(fleet: Fleet) -> None:
    launched = service.launch(fleet.context, fleet.principal, LaunchRequest(model="starter", hardware="ssh-alpha-cpu"))
    running = fleet.wait(launched.id, lambda seen: seen.phase in {"running", "failed"}, "the engine runs")
    assert running.phase == "running", running.reason
    (copied,) = (fleet.host.state_dir / "models").iterdir()
    assert (copied / "config.json").is_file()
    service.terminate(fleet.context, fleet.principal, launched.id)
    fleet.wait(launched.id, lambda seen: seen.phase == "terminated", "it is gone")
