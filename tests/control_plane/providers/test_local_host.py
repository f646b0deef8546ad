"""The local host with real processes: start, drain, death, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from control_plane.errors import Unavailable
from control_plane.providers.base import ProviderError, ReplicaSpec, ReplicaState, Weights
from control_plane.providers.local import LocalProvider
from control_plane.settings import Settings
from tests.support.local_host import make_model, running_local_host
from tests.support.processes import alive, eventually


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    # A path longer than a socket address can hold: data folders may be deep.
    return Settings(data_dir=tmp_path_factory.mktemp("local-host") / ("deep" * 20) / "data")


@pytest.fixture(scope="module")
def host(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    with running_local_host(settings) as host:
        yield host


@pytest.fixture
def provider(settings: Settings, host: subprocess.Popen[bytes]) -> Iterator[LocalProvider]:
    """One host for all tests here; each finds it empty."""
    provider = LocalProvider.from_settings(settings)
    yield provider
    while replicas := provider.list_owned():
        for replica in replicas:
            provider.delete(replica.name, boot_token=None, grace_s=0)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A replica name, and so a log, that no other test has used."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:90].strip("-")


def _spec(model: Path, name: str, boot: str = "boot-1") -> ReplicaSpec:
    return ReplicaSpec(
        name=name,
        owner="test",
        weights=Weights("org/model", None, model),
        served_model_name="org/model",
        hardware_id="local-cpu",
        api_key="secret-of-the-replica",
        boot_token=boot,
    )


def _process_of(provider: LocalProvider, name: str) -> psutil.Process:
    log = provider.logs(name, tail_bytes=1 << 16)
    return psutil.Process(int(log.rpartition("[slipway] engine started: process ")[2].split(",")[0]))


def _answers(url: str | None) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_create_is_idempotent_and_the_engine_answers_at_its_url(
    provider: LocalProvider, name: str, settings: Settings, tmp_path: Path
) -> None:
    spec = _spec(make_model(tmp_path / "model"), name)
    first = provider.create(spec)
    again = provider.create(spec)

    assert first == again == provider.find(name)
    assert provider.list_owned() == [first]
    assert first.state is ReplicaState.RUNNING
    eventually(lambda: _answers(first.url), "the engine answers")
    key_file = settings.instances_dir / name / "api-key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    headers = {"Authorization": "Bearer secret-of-the-replica"}
    assert httpx.get(f"{first.url}/v1/models", headers=headers).status_code == 200
    assert httpx.get(f"{first.url}/v1/models").status_code == 401


def test_no_secret_of_the_control_plane_reaches_the_engine(provider: LocalProvider, name: str, tmp_path: Path) -> None:
    provider.create(_spec(make_model(tmp_path / "model", print_environment=True), name))
    eventually(lambda: "ready http" in provider.logs(name, tail_bytes=1 << 16), "the engine is up")
    log = provider.logs(name, tail_bytes=1 << 16)
    environment = json.loads(next(line for line in log.splitlines() if line.startswith("{")))

    assert [variable for variable in environment if variable.startswith("SLIPWAY_")] == ["SLIPWAY_REPLICA_FOLDER"]
    assert "HF_TOKEN" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert "secret-of-the-replica" not in log


def test_exit_code_and_log_are_known_after_death(provider: LocalProvider, name: str, tmp_path: Path) -> None:
    spec = _spec(make_model(tmp_path / "model", exit_code=2, message="error: not enough memory"), name)
    provider.create(spec)
    eventually(lambda: provider.find(name).state is ReplicaState.EXITED, "the engine ends")

    assert provider.find(name).exit_code == 2
    assert provider.create(spec).state is ReplicaState.EXITED, "the same boot is not started twice"
    provider.delete(name, boot_token=None, grace_s=1)
    assert provider.find(name).state is ReplicaState.ABSENT
    assert "error: not enough memory" in provider.logs(name, tail_bytes=1000)


def test_a_new_boot_follows_a_killed_one(provider: LocalProvider, name: str, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    provider.create(_spec(model, name))
    _process_of(provider, name).kill()
    eventually(lambda: provider.find(name).state is ReplicaState.EXITED, "the engine's death is noticed")
    assert provider.find(name).exit_code == -signal.SIGKILL

    second = provider.create(_spec(model, name, boot="boot-2"))
    assert (second.state, second.boot_token) == (ReplicaState.RUNNING, "boot-2")
    log = provider.logs(name, tail_bytes=1000)
    assert "killed by SIGKILL" in log
    followed = "".join(text for _, text in provider.follow_logs(name, offset=0))
    assert followed.startswith(log)


def test_a_live_replica_of_another_boot_is_not_replaced(provider: LocalProvider, name: str, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    first = provider.create(_spec(model, name))
    assert provider.create(_spec(model, name, boot="boot-2")) == first


def test_delete_drains_then_kills_the_whole_group(provider: LocalProvider, name: str, tmp_path: Path) -> None:
    helper_file = tmp_path / "helper.pid"
    provider.create(_spec(make_model(tmp_path / "model", ignore_sigterm=True, helper=str(helper_file)), name))
    eventually(lambda: helper_file.exists() and helper_file.read_text(), "the helper runs")
    process, helper = _process_of(provider, name), psutil.Process(int(helper_file.read_text()))

    provider.delete(name, boot_token=None, grace_s=0.3)
    provider.delete(name, boot_token=None, grace_s=30)

    eventually(lambda: provider.find(name).state is ReplicaState.ABSENT, "the replica is gone")
    eventually(lambda: not alive([process, helper]), "its processes are gone")
    assert "did not end within 0.3 s" in provider.logs(name, tail_bytes=1000)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_hosts_end_is_the_end_of_every_replica(tmp_path: Path, number: signal.Signals) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    provider, model = LocalProvider.from_settings(settings), make_model(tmp_path / "model")
    with running_local_host(settings) as host:
        urls = [provider.create(_spec(model, f"replica-{n}")).url for n in range(3)]
        eventually(lambda: all(map(_answers, urls)), "three engines answer")
        processes = [_process_of(provider, f"replica-{n}") for n in range(3)]

        host.send_signal(number)

        assert host.wait(20) == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    eventually(lambda: not alive(processes), "no engine is left")
    with pytest.raises(Unavailable, match="does not answer"):
        provider.find("replica-0")
    assert not provider.offers()[0].available


def test_the_next_host_kills_what_an_earlier_one_left(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    marker = {"SLIPWAY_REPLICA_FOLDER": str(settings.instances_dir / "replica-0")}
    survivor = subprocess.Popen(["sleep", "600"], env=os.environ | marker)
    stranger = subprocess.Popen(["sleep", "600"], env=os.environ | {"SLIPWAY_REPLICA_FOLDER": "/elsewhere/replica-0"})
    try:
        with running_local_host(settings):
            assert survivor.wait(10) == -signal.SIGKILL
            assert stranger.poll() is None
    finally:
        for process in (survivor, stranger):
            process.kill()
            process.wait()


def test_one_host_per_data_folder(provider: LocalProvider, settings: Settings) -> None:
    argv = [sys.executable, "-m", "control_plane.providers.local_host"]
    second = subprocess.run(
        argv, env=settings.child_environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 1
    assert "another local host already serves" in second.stderr
    assert provider.list_owned() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../escape"}, "cannot name a replica"),
        ({"weights": Weights("org/model", None, Path("/nowhere"))}, "model folder /nowhere is not there"),
        ({"hardware_id": "local-gpu-97"}, "no hardware 'local-gpu-97'"),
        ({"engine_options": {"port": "1"}}, "'port' cannot be set"),
        ({"engine_options": {"x y": "1"}}, "'x y' cannot be set"),
    ],
)
def test_what_cannot_work_is_refused(
    provider: LocalProvider, name: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProviderError, match=message):
        provider.create(replace(_spec(make_model(tmp_path / "model"), name), **changes))
    assert provider.list_owned() == []


def test_offers_tell_what_the_machine_has(provider: LocalProvider) -> None:
    cpu = provider.offers()[0]
    assert cpu.id == "local-cpu"
    assert cpu.available
    assert 1 <= cpu.cpu_count <= (os.cpu_count() or 1)
    assert 0 < cpu.memory_bytes <= psutil.virtual_memory().total
