"""The ssh provider on real sshds: the contract, whose host it is, and what a host can suffer."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from control_plane.errors import Invalid
from control_plane.providers.base import (
    Limits,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
    Weights,
    WeightsMissing,
)
from control_plane.providers.ssh import SshProvider
from control_plane.settings import Settings
from tests.control_plane.providers.contract import (
    BOOT,
    KEY,
    ProviderContract,
    boot_at,
    remove,
    replica,
    wait_until,
)
from tests.support.local_host import make_model
from tests.support.processes import alive, eventually
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


@pytest.fixture
def name() -> str:
    return f"slipway-{uuid4().hex}-0"


def refused(provider: SshProvider, site: SshSite, name: str) -> str:
    """What a person is told when a replica is started on a host that is not accepted; nothing else is believed."""
    with pytest.raises(ProviderError) as refusal:
        provider.create(site.spec(name, BOOT))
    with pytest.raises(ProviderUnavailable):
        provider.find(name)
    with pytest.raises(ProviderUnavailable):
        provider.list_owned()
    (offer,) = provider.offers()
    assert not offer.available
    assert offer.why_unavailable == refusal.value.detail
    return f"{refusal.value.detail} {refusal.value.next_step}"


def test_a_host_with_another_key_is_not_talked_to(site: SshSite, name: str) -> None:
    alpha, beta = site.hosts
    for expected in (beta.public_host_key, beta.fingerprint):
        words = refused(SshProvider([alpha.settings(host_key=expected)], OWNER), site, name)
        assert alpha.fingerprint in words
        assert "another key" in words
        assert "Somebody may stand between" in words


def test_a_host_that_nobody_has_vouched_for_is_refused_with_its_fingerprint(site: SshSite, name: str) -> None:
    alpha = site.hosts[0]
    words = refused(SshProvider([alpha.settings(host_key="")], OWNER), site, name)
    assert f'host_key = "{alpha.fingerprint}"' in words


def test_a_host_is_known_by_fingerprint_or_by_a_file(site: SshSite, tmp_path: Path) -> None:
    alpha, beta = site.hosts
    known = tmp_path / "known_hosts"
    known.write_text(f"[{alpha.address}]:{alpha.port} {alpha.public_host_key}\n")
    for changes in ({"host_key": alpha.fingerprint}, {"host_key": "", "known_hosts": known}):
        assert SshProvider([alpha.settings(**changes)], OWNER).offers()[0].available
    (stranger,) = SshProvider([beta.settings(host_key="", known_hosts=known)], OWNER).offers()
    assert not stranger.available


def test_a_key_that_is_not_let_in_and_one_that_is_none(site: SshSite, name: str, tmp_path: Path) -> None:
    alpha = site.hosts[0]
    stranger = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    assert "authorized_keys" in refused(SshProvider([alpha.settings(key_file=stranger)], OWNER), site, name)
    assert "passphrase" in refused(SshProvider([alpha.settings(key_file=tmp_path / "none")], OWNER), site, name)


def test_hosts_come_from_the_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slipway.toml").write_text(
        '[[ssh_hosts]]\nname = "alpha"\naddress = "10.0.0.7"\nuser = "ada"\nkey_file = "key"\nhost_key = "SHA256:x"\n'
    )
    monkeypatch.chdir(tmp_path)
    (host,) = Settings(secret_key="a test's").ssh_hosts
    assert (host.name, host.port, host.listen_address, host.agent_program) == ("alpha", 22, "10.0.0.7", "slipway-agent")
    (tmp_path / "slipway.toml").unlink()
    monkeypatch.setenv("SLIPWAY_SSH_HOSTS", f"[{host.model_dump_json()}]")
    assert Settings(secret_key="a test's").ssh_hosts == [host]
    (child,) = Settings(
        **json.loads(Settings(secret_key="a test's").child_environment()["SLIPWAY_OVERRIDES"])
    ).ssh_hosts
    assert child == host


def test_hosts_need_names_and_there_must_be_some() -> None:
    with pytest.raises(Invalid, match="ssh_hosts is empty"):
        SshProvider.from_settings(Settings(secret_key="a test's"))


def test_one_host_that_is_down_leaves_the_other_as_it_is(site: SshSite, name: str) -> None:
    alpha = site.hosts[0]
    site.provider.offers()
    site.provider.create(replace(site.spec(name, BOOT), hardware_id="ssh-beta-cpu"))
    wait_until(site.provider, name, ReplicaState.RUNNING)
    alpha.stop()
    try:
        assert site.provider.find(name).node == "beta"
        with pytest.raises(ProviderUnavailable, match="alpha"):
            site.provider.find("slipway-that-is-not-on-beta")
        offers = {offer.id: offer for offer in site.provider.offers()}
        assert offers["ssh-beta-cpu"].available
        assert not offers["ssh-alpha-cpu"].available
        assert "alpha" in (offers["ssh-alpha-cpu"].why_unavailable or "")
        assert offers["ssh-alpha-cpu"].memory_bytes > 0, "what it had the last time"
    finally:
        alpha.start()
    remove(site.provider, name)


NVIDIA_SMI = """#!/bin/sh
case "$1" in
--query-compute-apps*) echo "GPU-busy, 4711" ;;
--query-gpu*)
  echo "0, GPU-aaa, NVIDIA H200, 143771, 143000"
  echo "1, GPU-busy, NVIDIA H200, 143771, 20000"
  echo "2, GPU-bbb, NVIDIA H200, 143771, 142000"
  echo "3, GPU-ccc, NVIDIA L4, 23034, 22000" ;;
esac
"""


@pytest.fixture
def gpu_host(site: SshSite) -> Iterator[SshdHost]:
    """Alpha with devices, as its nvidia-smi tells."""
    alpha = site.hosts[0]
    alpha.add_program("nvidia-smi", NVIDIA_SMI)
    yield alpha
    (alpha.bin / "nvidia-smi").unlink()


def test_devices_are_found_given_out_one_by_one_and_waited_for(site: SshSite, gpu_host: SshdHost) -> None:
    h200, l4 = "ssh-alpha-nvidia-h200", "ssh-alpha-nvidia-l4"
    offers = {offer.id: offer for offer in site.provider.offers()}
    assert (offers[h200].accelerator, offers[h200].accelerator_count, offers[h200].free_count) == ("NVIDIA H200", 3, 2)
    assert (offers[h200].memory_bytes, offers[h200].price_per_hour) == (142000 << 20, 1.5)
    assert (offers[l4].accelerator_count, offers[l4].free_count) == (1, 1)

    names = [f"slipway-{uuid4().hex}-{ordinal}" for ordinal in range(3)]
    try:
        for replica in names:
            spec = replace(site.spec(replica, BOOT, print_environment=True), hardware_id=h200, accelerator_count=1)
            site.provider.create(spec)
        for replica in names[:2]:
            wait_until(site.provider, replica, ReplicaState.RUNNING)
        assert {visible_devices(site, replica) for replica in names[:2]} == {"GPU-aaa", "GPU-bbb"}
        waiting = "waiting for 1 free × nvidia-h200: 0 are free now"
        eventually(lambda: site.provider.find(names[2]).reason == waiting, "it says for what it waits")
        assert site.provider.find(names[2]).state is ReplicaState.PENDING
        full = {offer.id: offer for offer in site.provider.offers()}[h200]
        assert (full.free_count, full.available, full.why_unavailable) == (0, False, "all 3 are in use")

        freed = visible_devices(site, names[0])
        remove(site.provider, names[0])
        wait_until(site.provider, names[2], ReplicaState.RUNNING)
        assert visible_devices(site, names[2]) == freed
        with pytest.raises(ProviderError, match="has 3"):
            site.provider.create(replace(site.spec(names[0], BOOT), hardware_id=h200, accelerator_count=4))
    finally:
        for replica in names:
            remove(site.provider, replica)


def visible_devices(site: SshSite, name: str) -> str:
    """What the engine said it sees."""
    eventually(lambda: "ready http" in site.provider.logs(name, tail_bytes=1 << 16), "it wrote its log")
    return str(environment_of(site, name)["CUDA_VISIBLE_DEVICES"])


def environment_of(site: SshSite, name: str) -> dict[str, str]:
    log = site.provider.logs(name, tail_bytes=1 << 16)
    return dict(json.loads(next(line for line in log.splitlines() if line.startswith("{"))))


def test_the_key_is_in_a_private_file_and_nowhere_else(site: SshSite, name: str) -> None:
    with replica(site, name, print_environment=True):
        folder = site.hosts[0].state_dir / "replicas" / name
        secret = folder / "secret"
        assert (secret.read_text().strip(), stat.S_IMODE(secret.stat().st_mode)) == (KEY, 0o600)
        assert stat.S_IMODE(site.hosts[0].state_dir.stat().st_mode) == 0o700
        others = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path != secret]
        assert all(KEY.encode() not in content for content in others)
        (watcher,) = [process for process in site.hosts[0].watchers() if name in process.cmdline()]
        for process in (watcher, *watcher.children(recursive=True)):
            assert KEY not in " ".join(process.cmdline())
            assert KEY not in " ".join(process.environ().values())
        environment = environment_of(site, name)
        assert environment["HF_HUB_OFFLINE"] == "1"
        assert environment["CUDA_VISIBLE_DEVICES"] == ""
        ours = [variable for variable in environment if variable.startswith(("SLIPWAY_", "SSH_", "HF_"))]
        assert sorted(ours) == ["HF_HUB_OFFLINE", "SLIPWAY_REPLICA_FOLDER"]


@pytest.mark.parametrize(
    ("restarted", "reason"), [(True, "the host was restarted"), (False, "its supervisor was killed")]
)
def test_what_dies_with_its_host_is_lost_and_replaced(
    site: SshSite, name: str, tmp_path: Path, *, restarted: bool, reason: str
) -> None:
    helper_pid = tmp_path / "helper"
    with replica(site, name, helper=str(helper_pid)) as status:
        (watcher,) = [process for process in site.hosts[0].watchers() if name in process.cmdline()]
        helper = psutil.Process(int(helper_pid.read_text()))
        family = [watcher, *(process for process in watcher.children(recursive=True) if process != helper)]
        watcher.kill()
        eventually(lambda: not alive(family), "the engine does not outlive its supervisor")
        if restarted:  # what it wrote down was in an earlier boot of the machine
            told = site.hosts[0].state_dir / "replicas" / name / "status.json"
            told.write_text(json.dumps(json.loads(told.read_text()) | {"boot_id": "an-earlier-one"}))
        lost = site.provider.find(name)
        assert (lost.state, lost.reason, lost.boot_token) == (ReplicaState.LOST, reason, BOOT)
        assert boot_at(status.url) is None
        assert "ready http" in site.provider.logs(name, tail_bytes=4096)
        assert site.provider.create(site.spec(name, BOOT)).state is ReplicaState.LOST, "not started twice"
        site.provider.create(site.spec(name, "boot-2"))
        eventually(lambda: not alive([helper]), "what the dead engine left behind is ended")
        assert wait_until(site.provider, name, ReplicaState.RUNNING).boot_token == "boot-2"


def test_what_is_missing_on_a_host_is_said(site: SshSite, name: str, tmp_path: Path) -> None:
    alpha = site.hosts[0]
    bare = SshProvider([alpha.settings(engine="/no/such/slipway-serve")], OWNER)
    (offer,) = bare.offers()
    assert "/no/such/slipway-serve and /no/such/slipway-agent cannot be found on host alpha" in str(
        offer.why_unavailable
    )
    with pytest.raises(ProviderError, match="is not there or cannot be run"):
        bare.create(site.spec(name, BOOT))
    assert "Install Python" in refused(SshProvider([alpha.settings(python="no-such-python")], OWNER), site, name)
    with pytest.raises(ProviderError, match="limits can be kept by systemd only"):
        site.provider.create(replace(site.spec(name, BOOT), limits=Limits(cpus=1)))
    abroad = SshProvider([alpha.settings(replica_address="192.0.2.1")], OWNER)
    with pytest.raises(ProviderError, match=r"cannot listen on 192\.0\.2\.1"):
        abroad.create(site.spec(name, BOOT))
    fetched = Weights("org/model", "0" * 40, None)
    with pytest.raises(WeightsMissing, match="models--org--model"):
        site.provider.create(replace(site.spec(name, BOOT), weights=fetched))
    assert site.provider.find(name).state is ReplicaState.ABSENT


def test_a_spoilt_supervisor_is_replaced(site: SshSite) -> None:
    (path,) = site.hosts[0].state_dir.glob("supervisor-*.pyz")
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert SshProvider([site.hosts[0].settings()], OWNER).offers()[0].available
    assert path.read_bytes() == good


SYSTEMCTL = '#!/bin/sh\n[ "$1" = is-system-running ] && echo running\n'
SYSTEMD_RUN = """#!/bin/sh
printf '%s\\n' "$@" > "$(dirname "$0")/../systemd-run.argv"
while [ "$1" != -- ]; do shift; done
shift
setsid "$@" < /dev/null > /dev/null 2>&1 &
"""


def test_where_systemd_runs_replicas_are_units_with_limits(site: SshSite, name: str) -> None:
    alpha = site.hosts[0]
    alpha.add_program("systemctl", SYSTEMCTL)
    alpha.add_program("systemd-run", SYSTEMD_RUN)
    try:
        spec = replace(site.spec(name, BOOT), limits=Limits(cpus=1.5, memory_bytes=1 << 30))
        site.provider.create(spec)
        wait_until(site.provider, name, ReplicaState.RUNNING)
        argv = (alpha.folder / "systemd-run.argv").read_text().splitlines()
        assert f"--unit={name}-boot-1" in argv
        assert {"--collect", "--property=CPUQuota=150%", f"--property=MemoryMax={1 << 30}"} <= set(argv)
        remove(site.provider, name)
    finally:
        (alpha.bin / "systemctl").unlink()
        (alpha.bin / "systemd-run").unlink()
