"""The ssh provider on real sshds: the contract, whose host it is, and what a host can suffer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from control_plane.providers.base import ReplicaSpec, Weights
from control_plane.providers.ssh import SshProvider
from tests.control_plane.providers.contract import KEY, ProviderContract
from tests.support.local_host import make_model
from tests.support.sshd import SshdHost, running_hosts

OWNER, OTHER = "installation-one", "installation-two"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SshdHost]]:
    with running_hosts(tmp_path_factory.mktemp("ssh"), "127.0.0.2", "127.0.0.3") as hosts:
        yield hosts


class SshSite:
    """Two hosts; replicas go to the first."""

    def __init__(self, hosts: list[SshdHost], models: Path) -> None:
        self.hosts, self.models = hosts, models
        settings = [host.settings() for host in hosts]
        self.provider = SshProvider(settings, OWNER, timeout_s=10)
        self.other_installation = SshProvider(settings, OTHER, timeout_s=10)

    def spec(self, name: str, boot_token: str, **behaviour: object) -> ReplicaSpec:
        model = make_model(self.models / uuid4().hex, **behaviour)
        return ReplicaSpec(
            name=name,
            owner=OWNER,
            weights=Weights("org/model", None, model),
            served_model_name="org/model",
            hardware_id="ssh-alpha-cpu",
            api_key=KEY,
            boot_token=boot_token,
            labels={"instance": "one", "replica": "0"},
        )

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        for host in self.hosts:
            host.stop()
        try:
            yield
        finally:
            for host in self.hosts:
                host.start()


@pytest.fixture(scope="module")
def site(hosts: list[SshdHost], tmp_path_factory: pytest.TempPathFactory) -> SshSite:
    return SshSite(hosts, tmp_path_factory.mktemp("models"))


class TestContract(ProviderContract):
    """The shared suite."""
