"""The docker provider on Podman and on dockerd: what every provider does, what a container is allowed, what is left
behind by workers that were killed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from control_plane.errors import Invalid
from control_plane.providers.base import (
    Limits,
    ProviderError,
    ProviderUnavailable,
    ReplicaSpec,
    ReplicaState,
    ReplicaStatus,
    Weights,
)
from control_plane.providers.docker import DockerProvider
from control_plane.providers.docker_api import state
from control_plane.settings import Settings
from tests.control_plane.providers.contract import ProviderContract, names, remove, replica, wait_until
from tests.support.certificates import write_certificates
from tests.support.docker_site import IMAGE, KEY, DockerSite, killed_before
from tests.support.dockerd import Dockerd, running_dockerd
from tests.support.podman import running_podman
from tests.support.processes import eventually
from tests.support.registry import Registry, running_registry
from tests.support.rootfs import tiny_image_tar

_MIB = 1 << 20


@pytest.fixture(scope="module")
def image_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_image_tar(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module", params=["podman", "dockerd"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, image_tar: Path
) -> Iterator[DockerSite]:
    running = running_podman if request.param == "podman" else running_dockerd
    with running() as daemon:
        daemon.import_image(image_tar, IMAGE)
        yield DockerSite.make(daemon, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def name() -> str:
    return f"slipway-{uuid4().hex}-0"


class TestContract(ProviderContract):
    """On both."""


class TestConfinement:
    """What an engine may do to its host, and to others."""

    def test_it_has_no_rights_and_its_key_is_in_a_file_of_its_own(self, site: DockerSite, name: str) -> None:
        with replica(site, name):
            assert site.run_inside(name, "id", "-u") == "10001"
            status = site.run_inside(name, "grep", "-E", "^(CapEff|CapBnd|NoNewPrivs)", "/proc/self/status")
            assert status.split() == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
            assert site.run_inside(name, "stat", "-c", "%a %u", "/run/slipway/api-key") == "400 10001"
            # Podman gives a volume to the container's user; nothing but the key lies there.
            fixed = ("/", "/usr", "/weights") + (("/run/slipway",) if isinstance(site.daemon, Dockerd) else ())
            for folder in fixed:
                with pytest.raises(RuntimeError, match=r"Read-only|Permission denied"):
                    site.run_inside(name, "touch", f"{folder}/x")
            for folder in ("/tmp", "/var/cache/slipway"):  # noqa: S108 (of the container)
                site.run_inside(name, "touch", f"{folder}/x")
            raw = site.inspect(name)
            assert KEY not in json.dumps(raw)
            assert "HF_HUB_OFFLINE=1" in raw["Config"]["Env"]
            assert list(raw["NetworkSettings"]["Networks"]) == [f"slipway-{site.owner}"]

    def test_replicas_cannot_reach_each_other_on_dockers_own_network(self, site: DockerSite, name: str) -> None:
        with replica(site, name), replica(site, f"{name}1"):
            (network,) = site.inspect(name)["NetworkSettings"]["Networks"].values()
            probe = f"import socket; socket.create_connection(('{network['IPAddress']}', 8000), 2)"
            assert site.run_inside(name, "python3", "-c", probe) == ""
            if isinstance(site.daemon, Dockerd):  # Podman 4.3's networks have no such option
                with pytest.raises(RuntimeError, match="timed out"):
                    site.run_inside(f"{name}1", "python3", "-c", probe)

    def test_limits_are_set_and_an_engine_beyond_its_memory_ends(self, site: DockerSite, name: str) -> None:
        limits = Limits(cpus=0.5, memory_bytes=128 * _MIB)
        spec = replace(site.spec(name, "boot-1", allocate_bytes=512 * _MIB), limits=limits)
        site.provider.create(spec)
        try:
            status = wait_until(site.provider, name, ReplicaState.EXITED)
            host = site.inspect(name)["HostConfig"]
            assert (host["Memory"], host["MemorySwap"]) == (128 * _MIB, 128 * _MIB)
            assert host["PidsLimit"] == 4096
            assert host["NanoCpus"] == 500_000_000 or host["CpuQuota"] == 50_000
            assert status.exit_code == -9
            assert "limit of 134.2 MB" in (status.reason or "")
        finally:
            remove(site.provider, name)

    def test_weights_that_an_engine_may_not_read_are_named(self, site: DockerSite, name: str) -> None:
        spec = site.spec(name, "boot-1", print_environment=True)
        assert spec.weights.path is not None
        secret = spec.weights.path / "model.safetensors"
        secret.touch(mode=0o600)
        with pytest.raises(ProviderError, match=r"user 10001, who may not read .*model\.safetensors"):
            site.provider.create(spec)

    def test_what_comes_with_slipway_is_in_the_image(self, site: DockerSite, name: str) -> None:
        """The control plane may run in a container, of whose files the Docker host knows nothing."""
        mine_alone = Weights("slipway/starter", None, Path("/only/here"))
        site.provider.create(replace(site.spec(name, "boot-1"), weights=mine_alone))
        try:
            container = site.inspect(name)
            assert container["Config"]["Cmd"][0] == "/opt/slipway/src/starter/model"
            assert not [mount for mount in container["Mounts"] if mount["Type"] == "bind"]
        finally:
            remove(site.provider, name)

    def test_links_into_the_cache_resolve(self, site: DockerSite, name: str) -> None:
        model = site.folder / f"models--org--{name}"
        blob = model / "blobs" / "e7a6"
        blob.parent.mkdir(parents=True)
        blob.write_text(json.dumps({"exit_code": 5, "message": "the behaviour was read through a link"}))
        snapshot = model / "snapshots" / ("ab" * 20)
        snapshot.mkdir(parents=True)
        (snapshot / "behaviour.json").symlink_to("../../blobs/e7a6")
        site.provider.create(replace(site.spec(name, "boot-1"), weights=Weights("org/model", "ab" * 20, snapshot)))
        try:
            wait_until(site.provider, name, ReplicaState.EXITED)
            log = site.provider.logs(name, tail_bytes=4096)
            assert "the behaviour was read through a link" in log
        finally:
            remove(site.provider, name)
        assert "the behaviour was read through a link" in site.provider.logs(name, tail_bytes=4096), "kept"


class TestOthers:
    """What is not ours."""

    def test_a_container_of_our_name_without_our_tag_is_left_alone(self, site: DockerSite, name: str) -> None:
        with site.client() as client:
            client.create_container(IMAGE, name=name, entrypoint=["sleep", "600"])
            client.start(name)
            try:
                site.provider.delete(name, boot_token=None, grace_s=0)
                assert site.provider.find(name).state is ReplicaState.ABSENT
                assert name not in names(site.provider.list_owned())
                with pytest.raises(ProviderError, match="is taken by a container"):
                    site.provider.create(site.spec(name, "boot-1"))
                assert client.inspect_container(name)["State"]["Running"]
            finally:
                client.remove_container(name, force=True)

    def test_another_installations_replica_is_left_alone(self, site: DockerSite, name: str) -> None:
        with replica(site, name) as status:
            site.other_installation.delete(name, boot_token=None, grace_s=0)
            assert site.other_installation.find(name).state is ReplicaState.ABSENT
            assert site.provider.find(name) == status


class TestKilledWorkers:
    """A worker is killed in the middle; the next one finds what it left."""

    def test_between_create_and_start(self, site: DockerSite, name: str) -> None:
        spec = site.spec(name, "boot-1")
        killed_before("start" if isinstance(site.daemon, Dockerd) else "put_archive", site, spec)
        assert site.provider.find(name).state is ReplicaState.PENDING
        assert name in names(site.provider.list_owned())
        try:
            site.provider.create(spec)
            assert wait_until(site.provider, name, ReplicaState.RUNNING).boot_token == "boot-1"
        finally:
            remove(site.provider, name)

    @pytest.mark.parametrize("site", ["dockerd"], indirect=True)
    def test_what_was_never_started_can_be_deleted(self, site: DockerSite, name: str) -> None:
        killed_before("start", site, site.spec(name, "boot-1"))
        site.provider.delete(name, boot_token=None, grace_s=30)
        assert site.provider.find(name).state is ReplicaState.ABSENT

    def test_what_nobody_starts_is_lost(self, site: DockerSite, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        killed_before("start", site, site.spec(name, "boot-1"))
        monkeypatch.setattr(state, "START_WITHIN", timedelta(0))
        status = site.provider.find(name)
        assert (status.state, status.boot_token) == (ReplicaState.LOST, "boot-1")
        assert "never started" in (status.reason or "")
        site.provider.create(site.spec(name, "boot-2"))
        assert wait_until(site.provider, name, ReplicaState.RUNNING).boot_token == "boot-2"
        remove(site.provider, name)

    def test_a_half_done_delete_is_finished_by_the_next(self, site: DockerSite, name: str) -> None:
        site.provider.create(site.spec(name, "boot-1", ignore_sigterm=True))
        wait_until(site.provider, name, ReplicaState.RUNNING)
        killed_before("wait", site, site.spec(name, "boot-1"), delete_grace_s=1.0)
        assert site.provider.find(name).state is ReplicaState.RUNNING
        site.provider.delete(name, boot_token=None, grace_s=1)
        eventually(lambda: site.provider.find(name).state is ReplicaState.ABSENT, "it is gone", 60)

    def test_an_engine_is_told_to_drain_once(self, site: DockerSite, name: str) -> None:
        with replica(site, name, drains=True) as status:
            with site.request_in_flight(status.url):
                killed_before("wait", site, site.spec(name, "boot-1"), delete_grace_s=20.0)
                for _ in range(3):
                    site.provider.delete(name, boot_token=None, grace_s=20)
                eventually(lambda: "draining" in site.provider.logs(name, tail_bytes=4096), "it drains")
            eventually(lambda: site.provider.find(name).state is ReplicaState.ABSENT, "it is gone", 60)
        assert site.provider.logs(name, tail_bytes=4096).count("draining") == 1


class TestLogs:
    """Copied piece by piece, by several processes."""

    def test_equal_lines_are_copied_as_often_as_they_were_written(self, site: DockerSite, name: str) -> None:
        another_worker = DockerProvider.from_settings(site.settings)
        with replica(site, name) as status:
            text, offset = "", 0
            for number in range(12):
                assert httpx.get(f"{status.url}/told-{number % 3}", timeout=5, trust_env=False).status_code == 200
                worker = (another_worker, site.provider)[number % 2]
                for next_offset, piece in worker.follow_logs(name, offset=offset):
                    text, offset = text + piece, next_offset
            eventually(lambda: "told-2" in site.provider.logs(name, tail_bytes=4096), "the log is complete")
            text += "".join(piece for _, piece in site.provider.follow_logs(name, offset=offset))
            assert [text.count(f"GET /told-{number}") for number in range(3)] == [4, 4, 4]
            assert site.provider.logs(name, tail_bytes=1 << 20) == text


class TestPull:
    """The image is not there yet."""

    @pytest.fixture
    def registry(self, site: DockerSite) -> Iterator[Registry]:
        programs = {"bin/slipway-serve": Path("/usr/bin/catatonit").read_bytes()}
        with running_registry(site.daemon.registry, programs) as registry:
            yield registry

    @pytest.fixture
    def pulling(self, site: DockerSite, registry: Registry, tmp_path: Path) -> Iterator[DockerSite]:
        """The same daemon, for an installation whose image is in the registry."""
        pulling = DockerSite.make(site.daemon, tmp_path, docker_serving_image=registry.image)
        yield pulling
        registry.open_gate()
        eventually(lambda: not _pulls(pulling), "nobody pulls any more", 30)

    def test_progress_is_told_by_every_worker_until_it_runs(
        self, pulling: DockerSite, registry: Registry, name: str
    ) -> None:
        spec = pulling.spec(name, "boot-1")
        pending = pulling.provider.create(spec)
        assert (pending.state, pending.boot_token) == (ReplicaState.PENDING, "boot-1")
        another_worker = DockerProvider.from_settings(pulling.settings)
        seen: list[ReplicaStatus] = []

        def half_way() -> bool:
            seen.append(another_worker.find(name))
            return re.search(r"pulling image .*: [1-9][\d.]* MB of 8\.7 MB", seen[-1].reason or "") is not None

        eventually(half_way, "progress is told", 30)
        assert (seen[-1].state, seen[-1].boot_token, seen[-1].labels) == (ReplicaState.PENDING, "boot-1", spec.labels)
        registry.open_gate()
        eventually(lambda: pulling.provider.find(name).state is ReplicaState.ABSENT, "it is pulled", 60)
        try:
            another_worker.create(spec)
            assert another_worker.find(name).boot_token == "boot-1"
        finally:
            remove(pulling.provider, name)

    def test_a_killed_workers_pull_is_taken_up(self, pulling: DockerSite, registry: Registry, name: str) -> None:
        spec = pulling.spec(name, "boot-1")
        killed_before("", pulling, spec)
        assert pulling.provider.find(name).state is ReplicaState.ABSENT
        assert pulling.provider.create(spec).state is ReplicaState.PENDING
        pulling.provider.delete(name, boot_token=None, grace_s=1)
        assert pulling.provider.find(name).state is ReplicaState.ABSENT
        registry.open_gate()
        eventually(lambda: not _pulls(pulling), "the pull ends", 60)
        assert pulling.provider.list_owned() == [], "what was deleted while it waited does not come back"

    def test_no_such_image(self, site: DockerSite, registry: Registry, tmp_path: Path, name: str) -> None:
        image = f"{registry.address}/tests/no-such-image:1"
        lost = DockerSite.make(site.daemon, tmp_path, docker_serving_image=image)
        with pytest.raises(ProviderError, match="no-such-image") as refusal:
            _create_until_refused(lost.provider, lost.spec(name, "boot-1"))
        assert "SLIPWAY_DOCKER_SERVING_IMAGE" in refusal.value.next_step
        assert lost.provider.find(name).state is ReplicaState.ABSENT

    def test_no_registry(self, site: DockerSite, tmp_path: Path, name: str) -> None:
        image = f"{site.daemon.registry}/tests/image:1"
        lost = DockerSite.make(site.daemon, tmp_path, docker_serving_image=image)
        with pytest.raises(ProviderUnavailable, match="cannot be pulled"):
            _create_until_refused(lost.provider, lost.spec(name, "boot-1"))


def _pulls(site: DockerSite) -> bool:
    return any(site.provider.find(name).state is ReplicaState.PENDING for name in site.waiting())


def _create_until_refused(provider: DockerProvider, spec: ReplicaSpec) -> None:
    eventually(lambda: provider.create(spec).state is ReplicaState.RUNNING, "it is refused", 60)


GPUS = [{"id": str(index), "name": "NVIDIA H200", "memory_bytes": 100} for index in range(2)]


class TestGpus:
    """Devices that the settings name; no driver is needed to see who gets which."""

    @pytest.fixture
    def gpus(self, site: DockerSite, tmp_path: Path) -> Iterator[DockerSite]:
        gpus = DockerSite.make(site.daemon, tmp_path, docker_gpus=GPUS)
        yield gpus
        for status in gpus.provider.list_owned():
            remove(gpus.provider, status.name)

    def test_they_are_offered_where_they_can_be_had(self, gpus: DockerSite) -> None:
        offer = gpus.offer()
        assert (offer.id, offer.accelerator_count, offer.memory_bytes) == ("docker-nvidia-h200", 2, 100)
        assert offer.free_count == 2
        assert offer.available is isinstance(gpus.daemon, Dockerd)

    @pytest.mark.parametrize("site", ["podman"], indirect=True)
    def test_podman_would_drop_the_request_so_it_is_refused(self, gpus: DockerSite, name: str) -> None:
        with pytest.raises(ProviderError, match="Podman's Docker API drops"):
            gpus.provider.create(gpus.gpu_spec(name, 1, 100))
        assert gpus.provider.find(name).state is ReplicaState.ABSENT

    @pytest.mark.parametrize("site", ["dockerd"], indirect=True)
    def test_replicas_get_devices_of_their_own_and_wait_for_one(self, gpus: DockerSite, name: str) -> None:
        first, second, third = (f"{name}{number}" for number in range(3))
        for one in (first, second):
            gpus.provider.create(gpus.gpu_spec(one, 1, 100))
        asked = [gpus.devices(one)[0] for one in (first, second)]
        assert sorted(asked, key=sorted) == [{"0"}, {"1"}]
        assert {gpus.devices(one)[1] for one in (first, second)} == {"0", "1"}
        assert gpus.offer().free_count == 0
        waits = gpus.provider.create(gpus.gpu_spec(third, 1, 100))
        assert (waits.state, waits.boot_token) == (ReplicaState.PENDING, "boot-1")
        assert "2 of 2 × NVIDIA H200 are used" in (waits.reason or "")
        remove(gpus.provider, first)
        assert gpus.provider.create(gpus.gpu_spec(third, 1, 100)).state is ReplicaState.RUNNING
        assert gpus.devices(third)[0] == asked[0]

    @pytest.mark.parametrize("site", ["dockerd"], indirect=True)
    def test_several_share_a_card_when_they_say_what_they_need(self, gpus: DockerSite, name: str) -> None:
        for number, memory in enumerate((40, 40, 40)):
            gpus.provider.create(gpus.gpu_spec(f"{name}{number}", 1, memory))
        asked = [gpus.devices(f"{name}{number}")[0] for number in range(3)]
        assert asked == [{"0"}, {"0"}, {"1"}]

    @pytest.mark.parametrize("site", ["dockerd"], indirect=True)
    def test_one_replica_on_several(self, gpus: DockerSite, name: str) -> None:
        gpus.provider.create(gpus.gpu_spec(name, 2, 100))
        assert gpus.devices(name)[0] == {"0", "1"}
        with pytest.raises(ProviderError, match="3 devices"):
            gpus.provider.create(gpus.gpu_spec(f"{name}1", 3, 100))


@pytest.mark.parametrize("site", ["dockerd"], indirect=True)
class TestOverTls:
    """Docker on another machine."""

    def test_it_is_reached_with_a_certificate(self, site: DockerSite, tmp_path: Path, name: str) -> None:
        assert isinstance(site.daemon, Dockerd)
        remote = DockerSite.make(
            site.daemon,
            tmp_path,
            docker_host=site.daemon.tls_host,
            docker_cert_path=site.daemon.certificates,
            docker_publish_address="",
        )
        with replica(remote, name) as status:
            assert (status.url or "").startswith(f"http://{site.daemon.publish_address}:")

    def test_another_authoritys_certificate_is_no_answer(self, site: DockerSite, tmp_path: Path, name: str) -> None:
        assert isinstance(site.daemon, Dockerd)
        strangers = write_certificates(tmp_path / "strangers", site.daemon.publish_address)
        remote = DockerSite.make(site.daemon, tmp_path, docker_host=site.daemon.tls_host, docker_cert_path=strangers)
        with pytest.raises(ProviderUnavailable, match="certificate verify failed"):
            remote.provider.find(name)


class TestSettings:
    """What cannot work, or would give the Docker host away, is refused at once."""

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"docker_host": "tcp://192.0.2.1:2375"}, "without TLS obeys whoever"),
            ({"docker_host": "/var/run/docker.sock"}, "no address of Docker"),
            ({"docker_network": "host"}, "every port of the Docker host"),
            ({"docker_user": "0:0"}, "not a user without privileges"),
            ({"docker_user": "root"}, "not a user without privileges"),
            ({"docker_gpus": [{"id": "0", "name": "NVIDIA H200"}]}, "memory_bytes"),
        ],
    )
    def test_refused(self, tmp_path: Path, settings: dict[str, object], words: str) -> None:
        with pytest.raises(Invalid, match=words) as refusal:
            DockerProvider.from_settings(Settings.model_validate({"data_dir": tmp_path, **settings}))
        assert refusal.value.next_step
