"""The local provider: the contract, several engines on one card, limits that hold."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from control_plane.providers.base import Limits, ReplicaSpec, ReplicaState, Weights
from control_plane.providers.local import LocalProvider
from control_plane.settings import Settings
from tests.control_plane.providers.contract import KEY, ProviderContract, remove, wait_until
from tests.support.local_host import make_model, running_local_host
from tests.support.processes import eventually

GIB = 1 << 30
#: What a driver says of two cards, one of which others use half of.
TWO_CARDS = "0, GPU-aaaa, NVIDIA H200, 143771, 143300\n1, GPU-bbbb, NVIDIA H200, 143771, 70000"


@dataclass
class LocalSite:
    """A local host in a folder of its own."""

    provider: LocalProvider
    other_installation: LocalProvider
    host: subprocess.Popen[bytes]
    folder: Path

    def spec(self, name: str, boot_token: str, **behaviour: object) -> ReplicaSpec:
        model = make_model(self.folder / uuid4().hex, **behaviour)
        return ReplicaSpec(
            name=name,
            owner="test",
            weights=Weights("org/model", None, model),
            served_model_name="org/model",
            hardware_id="local-cpu",
            api_key=KEY,
            boot_token=boot_token,
            labels={"instance": "x", "replica": "0"},
        )

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        self.host.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.host.send_signal(signal.SIGCONT)


def provider_of(folder: Path) -> LocalProvider:
    settings = Settings(data_dir=folder)
    return LocalProvider(settings.local_host_socket, settings.instances_dir, price_per_hour=0.5, timeout_s=1.0)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    folder, other = tmp_path_factory.mktemp("local"), tmp_path_factory.mktemp("other")
    with running_local_host(Settings(data_dir=folder)) as host, running_local_host(Settings(data_dir=other)):
        yield LocalSite(provider_of(folder), provider_of(other), host, folder / "models")


class TestLocalContract(ProviderContract):
    """Processes of this machine."""


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSite]:
    """A machine whose driver shows two cards."""
    programs = tmp_path / "bin"
    programs.mkdir()
    smi = programs / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\ncat <<END\n{TWO_CARDS}\nEND\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    settings = Settings(data_dir=tmp_path / "data")
    with running_local_host(settings, programs=programs) as host:
        provider = provider_of(tmp_path / "data")
        yield LocalSite(provider, provider, host, tmp_path / "models")


def test_several_engines_share_a_card_as_long_as_their_memory_fits(cards: LocalSite) -> None:
    provider, gpu = cards.provider, {"hardware_id": "local-gpu-0", "accelerator_count": 1}
    assert [(o.id, o.free_count, o.memory_bytes >> 20) for o in provider.offers()[1:]] == [
        ("local-gpu-0", 1, 143300),
        ("local-gpu-1", 1, 70000),
    ]
    half = replace(cards.spec("a", "boot-1", print_environment=True), memory_bytes=70 * GIB, **gpu)
    assert provider.create(half).state is ReplicaState.RUNNING
    assert provider.create(replace(half, name="b")).state is ReplicaState.RUNNING
    third = provider.create(replace(half, name="c"))
    assert third.state is ReplicaState.PENDING
    assert third.reason == "GPU 0 has 140.4 GiB, of which 2 replicas hold 140.0; 70.0 are needed"
    assert provider.find("c").state is ReplicaState.ABSENT
    assert [(o.id, o.free_count, o.memory_bytes >> 20) for o in provider.offers()[1:]] == [
        ("local-gpu-0", 0, 143771 - 140 * 1024),
        ("local-gpu-1", 1, 70000),
    ]
    elsewhere = provider.create(replace(half, name="d", hardware_id="local-gpu-1"))
    assert elsewhere.state is ReplicaState.RUNNING
    for name, uuid in (("a", "GPU-aaaa"), ("d", "GPU-bbbb")):
        wanted = f'"CUDA_VISIBLE_DEVICES": "{uuid}"'
        eventually(lambda n=name, w=wanted: w in provider.logs(n, tail_bytes=1 << 16), "the engine sees one card")

    remove(provider, "a")
    assert provider.create(replace(half, name="c")).state is ReplicaState.RUNNING


def test_limits_are_the_processes_own(site: LocalSite) -> None:
    name = f"limited-{uuid4().hex}"
    limits = Limits(cpus=1, memory_bytes=256 << 20)
    site.provider.create(replace(site.spec(name, "boot-1"), limits=limits))
    try:
        url = wait_until(site.provider, name, ReplicaState.RUNNING).url or ""
        port = int(url.rpartition(":")[2])
        (engine,) = [
            process
            for process in psutil.Process(site.host.pid).children(recursive=True)
            if any(connection.laddr.port == port for connection in process.net_connections("tcp"))
        ]
        assert engine.rlimit(psutil.RLIMIT_DATA)[0] == 256 << 20
        assert len(engine.cpu_affinity()) == 1
    finally:
        remove(site.provider, name)


def test_an_engine_that_wants_more_memory_than_its_limit_ends_with_the_reason(site: LocalSite) -> None:
    name = f"greedy-{uuid4().hex}"
    spec = replace(site.spec(name, "boot-1", allocate_bytes=1 << 30), limits=Limits(memory_bytes=256 << 20))
    site.provider.create(spec)
    try:
        assert wait_until(site.provider, name, ReplicaState.EXITED).exit_code != 0
        eventually(lambda: "MemoryError" in site.provider.logs(name, tail_bytes=4096), "it said why")
    finally:
        remove(site.provider, name)
